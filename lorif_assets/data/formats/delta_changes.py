"""Which buckets of a Delta table its later versions changed: from its change feed or, without one, from its log.

Where a commit wrote no change feed, delta-rs derives the same rows from the files that it added and removed. Rows that
were only moved from file to file cancel out: per bucket, the hashes of added rows are summed, those of removed rows
subtracted, and a bucket whose sum is 0 holds the rows that it held before.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Self

import pyarrow as pa

from lorif_assets.data.formats.delta_buckets import ERRORS, BucketedTable
from lorif_assets.data.rows.arrow_values import rows_of, values_of

_CHANGE = "_change_type"
_OF_FEED = (_CHANGE, "_commit_version", "_commit_timestamp")
_SIGNS = {"insert": 1, "update_postimage": 1, "delete": -1, "update_preimage": -1}


@dataclass(frozen=True)
class Changes:
    """What changed between two versions: for each bucket that changed, its rows added less its rows removed.

    Where the history does not say, `gap` says why, and every bucket may have changed.
    """

    row_changes: Mapping[int, int]
    gap: str = ""

    def touches(self, bucket: int) -> bool:
        """Whether rows of the bucket may have changed."""
        return bool(self.gap) or bucket in self.row_changes


def changes(table: BucketedTable, old_version: str, new_version: str) -> Changes:
    """Return what changed after the old version, up to the new one.

    Reads the log's commits in between and the rows that they changed, once in a process; commits that only compact, vacuum
    or set properties cost their log entry. History that cannot be read is tried again at the next call.
    """
    try:
        return _changes(table, old_version, new_version)
    except ERRORS as error:
        reason = " ".join(str(error).split())
        return Changes({}, f"its history since version {_parsed(old_version)[0]} cannot be read ({reason[:200]})")


@lru_cache(maxsize=1024)
def _changes(table: BucketedTable, old_version: str, new_version: str) -> Changes:
    (first, old_id), (last, new_id) = _parsed(old_version), _parsed(new_version)
    if old_id != new_id or first > last:
        return Changes({}, "the table was created again")
    sums: Counter[int] = Counter()
    row_changes: Counter[int] = Counter()
    if first != last and table.at(old_version).schema() != table.at(new_version).schema():
        return Changes({}, f"its columns changed since version {first}")
    files = table.files()
    for number in range(first + 1, last + 1):
        with files.open_input_file(f"_delta_log/{number:020d}.json") as log:
            commit = _Commit.parse(log.read())
        if commit.hides_rows:
            return Changes({}, f"version {number} deleted rows by deletion vectors, without a change feed")
        for bucket, row, sign in _changed_rows(table, new_version, number) if commit.changes_data else ():
            sums[bucket] += sign * int.from_bytes(blake2b(row, digest_size=16).digest(), "big")
            row_changes[bucket] += sign
    return Changes({bucket: row_changes[bucket] for bucket, value in sums.items() if value})


# By table: a version, and the rows of each bucket in it.
_sizes: dict[BucketedTable, tuple[str, Mapping[int, int]]] = {}
# By table and version: the version up to which it was followed, and what changed in between.
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
        if step is None or step.gap:
            counts = Counter(
                table.bucket_of(row_id)
                for batch in table.scan(version, [table.id_column])
                for row_id in values_of(batch.column(table.id_column))
            )
        else:
            counts.update(step.row_changes)
        sizes = {bucket: rows for bucket, rows in sorted(counts.items()) if rows}
        _sizes[table] = (version, sizes)
    return sizes


def incremental_changes(table: BucketedTable, old_version: str, new_version: str) -> Changes:
    """Return the same as `changes`, reading only the commits after the version that the last call reached.

    A bucket that was changed and changed back counts as changed.
    """
    reached, total = _followed.get((table, old_version), (old_version, Changes({})))
    if reached == new_version:
        return total
    step = changes(table, reached, new_version)
    gap = total.gap or step.gap
    row_changes = {
        bucket: total.row_changes.get(bucket, 0) + step.row_changes.get(bucket, 0)
        for bucket in total.row_changes.keys() | step.row_changes.keys()
    }
    total = Changes({} if gap else row_changes, gap)
    if not gap:
        _followed[table, old_version] = (new_version, total)
    return total


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


def _changed_rows(table: BucketedTable, version: str, number: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the rows that one commit changed: bucket, values, and 1 for an added row or -1 for a removed one."""
    feed = table.at(version).load_cdf(starting_version=number, ending_version=number)
    for batch in pa.RecordBatchReader.from_stream(feed):
        for row in rows_of(batch):
            sign = _SIGNS[row[_CHANGE]]
            values = repr(sorted((name, value) for name, value in row.items() if name not in _OF_FEED)).encode()
            yield table.bucket_of(row[table.id_column]), values, sign
