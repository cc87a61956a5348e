"""Which buckets of a Delta table its later versions changed: from its change feed or, without one, from its log.

Where a commit wrote no change feed, delta-rs derives the same rows from the files that it added and removed. Rows that
were only moved from file to file cancel: per bucket, the hashes of rows that came are summed, less those of rows that
went, and a bucket whose sum is 0 holds what it held.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Self

import pyarrow as pa

from lorif_assets.data.delta import ERRORS, BucketedTable

_CHANGE = "_change_type"
_OF_FEED = (_CHANGE, "_commit_version", "_commit_timestamp")
_SIGNS = {"insert": 1, "update_postimage": 1, "delete": -1, "update_preimage": -1}


@dataclass(frozen=True)
class Changes:
    """What changed between two versions: by bucket, how many rows more it holds, for buckets that changed at all.

    Where history does not say, `unknown` says why, and every bucket may have changed.
    """

    more_rows: Mapping[int, int]
    unknown: str = ""

    def touches(self, bucket: int) -> bool:
        """Whether rows of the bucket may have changed."""
        return bool(self.unknown) or bucket in self.more_rows


def changes(table: BucketedTable, since: str, until: str) -> Changes:
    """Return what changed after the version `since`, up to `until`.

    Reads the log's commits in between and the rows that they changed, once in a process; commits that only compact, vacuum
    or set properties cost their log entry. History that cannot be read is tried again at the next call.
    """
    try:
        return _changes(table, since, until)
    except ERRORS as error:
        reason = " ".join(str(error).split())
        return Changes({}, f"its history since version {_parsed(since)[0]} cannot be read ({reason[:200]})")


@lru_cache(maxsize=1024)
def _changes(table: BucketedTable, since: str, until: str) -> Changes:
    (first, since_id), (last, until_id) = _parsed(since), _parsed(until)
    if since_id != until_id or first > last:
        return Changes({}, "the table was made anew")
    sums: Counter[int] = Counter()
    more: Counter[int] = Counter()
    if first != last and table.at(since).schema() != table.at(until).schema():
        return Changes({}, f"its columns changed since version {first}")
    files = table.files()
    for number in range(first + 1, last + 1):
        with files.open_input_file(f"_delta_log/{number:020d}.json") as log:
            commit = _Commit.parse(log.read())
        if commit.hides_rows:
            return Changes({}, f"version {number} deleted rows by deletion vectors, without a change feed")
        for bucket, row, sign in _rows_of(table, until, number) if commit.changes_data else ():
            sums[bucket] += sign * int.from_bytes(blake2b(row, digest_size=16).digest(), "big")
            more[bucket] += sign
    return Changes({bucket: more[bucket] for bucket, value in sums.items() if value})


# By table: a version, and the rows of each bucket in it.
_sizes: dict[BucketedTable, tuple[str, Mapping[int, int]]] = {}
# By table and version: up to which version it was followed, and what has changed since.
_followed: dict[tuple[BucketedTable, str], tuple[str, Changes]] = {}


def bucket_sizes(table: BucketedTable, version: str) -> Mapping[int, int]:
    """Return the rows in each bucket that has any.

    Reads the id column, once in a process; then only what newer versions changed.

    Raises:
        SourceError: the table cannot be read.
    """
    known, sizes = _sizes.get(table, ("", {}))
    if known != version:
        step = changes(table, known, version) if known else None
        counts = Counter(sizes)
        if step is None or step.unknown:
            counts = Counter(
                table.bucket_of(row_id)
                for batch in table.scan(version, [table.id_column])
                for row_id in batch.column(table.id_column).to_pylist()
            )
        else:
            counts.update(step.more_rows)
        sizes = {bucket: rows for bucket, rows in sorted(counts.items()) if rows}
        _sizes[table] = (version, sizes)
    return sizes


def changes_followed(table: BucketedTable, since: str, until: str) -> Changes:
    """Return the same as `changes`, reading only what came after the version that this process was last asked about.

    A bucket that was changed and changed back counts as changed.
    """
    reached, so_far = _followed.get((table, since), (since, Changes({})))
    if reached == until:
        return so_far
    step = changes(table, reached, until)
    unknown = so_far.unknown or step.unknown
    more = {
        bucket: so_far.more_rows.get(bucket, 0) + step.more_rows.get(bucket, 0)
        for bucket in so_far.more_rows.keys() | step.more_rows.keys()
    }
    so_far = Changes({} if unknown else more, unknown)
    if not unknown:
        _followed[table, since] = (until, so_far)
    return so_far


def _parsed(version: str) -> tuple[int, str]:
    number, _, table_id = version.partition("-")
    return int(number), table_id


@dataclass(frozen=True)
class _Commit:
    """What an entry of the log says: whether rows changed, and whether some were hidden in files that stayed."""

    changes_data: bool
    hides_rows: bool

    @classmethod
    def parse(cls, log: bytes) -> Self:
        actions: list[dict[str, dict[str, Any]]] = [json.loads(line) for line in log.splitlines() if line.strip()]
        files = [action[kind] for action in actions for kind in ("add", "remove") if kind in action]
        changed = [file for file in files if file.get("dataChange", True)]
        feed = any("cdc" in action for action in actions)
        return cls(bool(changed) or feed, not feed and any(file.get("deletionVector") for file in changed))


def _rows_of(table: BucketedTable, version: str, number: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the rows that one commit changed: bucket, values, and 1 for a row that came or -1 for one that went."""
    feed = table.at(version).load_cdf(starting_version=number, ending_version=number)
    for batch in pa.RecordBatchReader.from_stream(feed):
        for row in batch.to_pylist():
            sign = _SIGNS[row[_CHANGE]]
            values = repr(sorted((name, value) for name, value in row.items() if name not in _OF_FEED)).encode()
            yield table.bucket_of(row[table.id_column]), values, sign
