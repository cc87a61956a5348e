"""One side of a query's ranking as a list to read: filtered, near-duplicates folded, a page at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from lorif_assets.data.passages import Part, passage_metadata, passage_parts, passages
from lorif_assets.errors import SettingsError
from lorif_assets.influences.duplicates import first_of_its_kind
from lorif_assets.influences.exact_ranks import ExactRank
from lorif_assets.influences.metadata_values import counted_values, values_of
from lorif_assets.influences.ranked import Bin, Ranked, Side
from lorif_assets.lake.lake import Lake

MOST_READ = 20_000
"""Examples of a side whose texts are read to filter them."""
_MOST_FOLDED = 300
MOST_VALUES = 50
"""Of a column of metadata, the commonest, that a list counts."""


@dataclass(frozen=True)
class Filter:
    """Which examples are wanted: those that say a text, whatever its case, and have each of these values of metadata.

    `metadata` has pairs of a column and a value.
    """

    text: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    def admits(self, parts: tuple[Part, ...], metadata: Mapping[str, Any]) -> bool:
        """Whether an example is wanted."""
        said = "".join(part.text for part in parts).casefold()
        return self.text.casefold() in said and all(
            value in values_of(metadata, column) for column, value in self.metadata
        )

    @property
    def is_empty(self) -> bool:
        """Whether all are."""
        return not self.text and not self.metadata


@dataclass(frozen=True)
class Copy:
    """An example that nearly repeats another one above it."""

    rank: int
    shard: str
    example_id: str
    value: float


@dataclass(frozen=True)
class Influence:
    """A training example in a list.

    `value` is what the list is ranked by; `spreads` the same in standard deviations of all examples' values. `parts` are empty
    where the example was withdrawn since. `exact` is its rank by whole gradients, where that is stored; `copies` are examples
    further down that nearly repeat it.
    """

    rank: int
    shard: str
    example_id: str
    value: float
    spreads: float | None
    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]
    exact: ExactRank | None = None
    copies: tuple[Copy, ...] = ()


@dataclass(frozen=True)
class InfluenceList:
    """A page of one side.

    `n_listed` examples are on this side; `n_admitted` of them pass the filter, as `n_rows` rows once near-duplicates are
    folded, of which `rows` are those from `offset` on. `largest` is the largest magnitude of either side. `metadata` has the
    values that this side's examples have in each column, with how many have them; `distribution` is that of the values of all
    examples, where all are ranked.
    """

    rows: tuple[Influence, ...]
    offset: int
    n_rows: int
    n_admitted: int
    n_listed: int
    n_examples: int
    is_complete: bool
    largest: float
    distribution: tuple[Bin, ...]
    metadata: Mapping[str, tuple[tuple[str, int], ...]]

    @property
    def next_offset(self) -> int | None:
        """Where the next page begins; None on the last."""
        end = self.offset + len(self.rows)
        return end if end < self.n_rows else None


def influence_list(
    lake: Lake, ranked: Ranked, side: Side, wanted: Filter, offset: int, limit: int, *, fold: bool
) -> InfluenceList:
    """Return a page of one side of a ranking.

    Args:
        lake: where the examples' texts are.
        ranked: the ranking.
        side: of it.
        wanted: which examples.
        offset: rows before the page.
        limit: rows of the page.
        fold: whether examples that nearly repeat one above are folded into its row; among the first 300 rows.

    Raises:
        SettingsError: a filter would have to read more than 20,000 texts.
    """
    rows = ranked.side(side)
    n_listed = rows.height
    if n_listed > MOST_READ:
        if not wanted.is_empty:
            raise SettingsError(
                f"a filter reads at most {MOST_READ:,} texts, and {n_listed:,} examples are listed here: ask for a list of the "
                "leading ones"
            )
        read = _influences(lake, rows.slice(offset, limit), ranked.spread)
        page, n_rows, n_admitted, values = read, n_listed, n_listed, {}
    else:
        read = _influences(lake, rows, ranked.spread)
        admitted = [one for one in read if wanted.admits(one.parts, one.metadata)]
        folded = _folded(admitted) if fold else admitted
        page, n_rows, n_admitted = folded[offset : offset + limit], len(folded), len(admitted)
        values = counted_values(one.metadata for one in read)
    return InfluenceList(
        rows=tuple(page),
        offset=offset,
        n_rows=n_rows,
        n_admitted=n_admitted,
        n_listed=n_listed,
        n_examples=ranked.n_examples,
        is_complete=ranked.is_complete,
        largest=ranked.largest,
        distribution=ranked.distribution,
        metadata={column: tuple(found[:MOST_VALUES]) for column, found in values.items()},
    )


def _influences(lake: Lake, rows: pl.DataFrame, spread: float | None) -> list[Influence]:
    found = passages(lake, rows.select("shard", "example_id").iter_rows())
    influences = []
    for row in rows.iter_rows(named=True):
        passage = found.get((row["shard"], row["example_id"]))
        influences.append(
            Influence(
                rank=row["rank"],
                shard=row["shard"],
                example_id=row["example_id"],
                value=row["value"],
                spreads=row["value"] / spread if spread else None,
                parts=passage_parts(passage) if passage else (),
                metadata=passage_metadata(passage) if passage else {},
            )
        )
    return influences


def _folded(influences: list[Influence]) -> list[Influence]:
    compared, rest = influences[:_MOST_FOLDED], influences[_MOST_FOLDED:]
    # An example that was withdrawn says nothing, and repeats none.
    texts = ["".join(part.text for part in one.parts) or f"\0{position}" for position, one in enumerate(compared)]
    copies: dict[int, list[Copy]] = {}
    for one, first in zip(compared, first_of_its_kind(texts), strict=True):
        copies.setdefault(first, []).append(Copy(one.rank, one.shard, one.example_id, one.value))
    return [replace(compared[first], copies=tuple(others)) for first, (_, *others) in copies.items()] + rest
