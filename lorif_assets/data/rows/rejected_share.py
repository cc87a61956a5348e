"""The share of rows that a stage may set aside before a run stops."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import pyarrow as pa

from lorif_assets.data.rows.rejected import replace_rejected
from lorif_assets.data.rows.rejection_reasons import count_reasons, in_words
from lorif_assets.errors import TooManyRejectedError
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.lake import Lake


@dataclass(frozen=True)
class RejectedShare:
    """The rows that a stage sets aside of a whole, partition by partition, against the share that the settings allow.

    The share is of the whole, of which a partition may be a small part: one bad row of a short shard stops nothing. What
    earlier runs set aside in other partitions counts. A partition of which no row can be used does not count: it fails by
    itself, and the others go on.
    """

    lake: Lake
    stage: str
    whole: str
    """What it is, for messages."""
    rows: Mapping[str, int]
    """The stage's partitions that make up the whole, and how many rows each has, as far as that shows before it is read."""
    max_share: float
    stored_rows: Callable[[], Mapping[str, int]] = dict
    """How many rows partitions had when they were read, which may be more; asked for only where rows are set aside."""

    def replace(self, part: str, rejected: pa.Table, place: Callable[[int], str | None] = lambda _row: None) -> None:
        """Store the rows (example_id, row, reason, excerpt) that were set aside of one partition, in place of earlier ones.

        `place` says where a person finds a row.
        """
        replace_rejected(self.lake, self.stage, part, rejected, place)
        self._reasons[part] = rejected["reason"].to_pylist()

    def count(self, part: str, n_rows: int) -> None:
        """Take a partition for one of so many rows, as it was read."""
        self._counted[part] = n_rows

    def refuse(self, part: str, rejected: pa.Table) -> None:
        """Refuse to go on where these rows of a partition, with those set aside of the others, are too many.

        A partition of which every row is used is never refused.

        Raises:
            TooManyRejectedError: they are more than the share.
        """
        if not rejected.num_rows:
            return
        reasons = {**self._reasons, part: rejected["reason"].to_pylist()}
        n_rows_of = {**self._n_rows, **self._counted}
        usable = {one: rows for one, rows in n_rows_of.items() if len(reasons.get(one, ())) < rows}
        counts = count_reasons(chain.from_iterable(reasons.get(one, ()) for one in usable))
        count, n_rows = sum(counts.values()), sum(usable.values())
        if count > self.max_share * n_rows:
            raise TooManyRejectedError(
                f"{self.whole}: {count:,} of {n_rows:,} rows are set aside so far, more than the share "
                f"`data.max_rejected_share` = {self.max_share:g} allows: {in_words(counts)}. The table `rejected` lists them; "
                "correct the data, or raise the setting"
            )

    @cached_property
    def _counted(self) -> dict[str, int]:
        return {}

    @cached_property
    def _n_rows(self) -> Mapping[str, int]:
        stored = self.stored_rows()
        return {part: max(rows, stored.get(part, 0)) for part, rows in self.rows.items()}

    @cached_property
    def _reasons(self) -> dict[str, list[str]]:
        """Reasons by partition, as the lake holds them when first asked for, and as they were replaced since."""
        stored = self.lake.read(REJECTED, ["part", "reason"], stage=self.stage, part=list(self.rows))
        reasons: dict[str, list[str]] = {}
        for part, reason in stored.iter_rows():
            reasons.setdefault(part, []).append(reason)
        return reasons
