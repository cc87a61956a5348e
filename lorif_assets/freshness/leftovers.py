"""What the lake holds and nothing outside names any more: shards, query sets and checkpoints, and which rows count twice.

A source that is renamed or cut otherwise has its rows in new shards, and the lake has the old ones too: each row would be
scored twice.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import polars as pl

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.sections import AutomationSettings
from lorif_assets.data.shards import in_short
from lorif_assets.freshness.attribution import stale_training_examples
from lorif_assets.freshness.discovery import Discovered
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.attribution_tables import CHECKPOINTS, GRADIENT_FACTORS
from lorif_assets.lake.data_tables import KEPT_SHARDS, QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

_ROWS = ["shard", "example_id", "content_hash"]
# What shards of one file are named by, before their numbers.
_FILE = pl.col("shard").str.replace(r"-\d+$", "").alias("file")


class Fate(Enum):
    """What becomes of a leftover shard, by what its rows are, the settings, and what a person decided."""

    WITHDRAWN = "will be withdrawn"
    CUT = "will be cut to the rows that stand nowhere else"
    KEPT = "kept, as was decided"
    KEPT_BY_SETTINGS = 'kept by `automation.on_removed = "keep"`'
    UNDECIDED = "kept until it is decided about"


@dataclass(frozen=True)
class LeftoverShard:
    """A stored shard that no source names any more.

    `superseded` are the numbers (`row`) of its rows that stand in another shard too; `decided` is when a person decided that it
    stays, in ISO 8601, or None.
    """

    shard: str
    n_rows: int
    superseded: tuple[int, ...]
    decided: str | None = None

    def fate(self, on_removed: str) -> Fate:
        """Return what becomes of it under a value of `automation.on_removed`."""
        if not self.n_rows:
            # What a withdrawal that was interrupted left behind.
            return Fate.WITHDRAWN
        if self.decided is not None:
            return Fate.KEPT
        if on_removed == "keep":
            return Fate.KEPT_BY_SETTINGS
        if on_removed == "withdraw" or len(self.superseded) == self.n_rows:
            return Fate.WITHDRAWN
        return Fate.CUT if self.superseded else Fate.UNDECIDED


@dataclass(frozen=True)
class Leftovers:
    """What the lake holds and nothing outside names, each sorted by name.

    `n_unread` counts the shards of the sources that are to be read first: they may have the rows of leftover ones.
    """

    shards: tuple[LeftoverShard, ...]
    query_sets: tuple[str, ...]
    checkpoints: tuple[str, ...]
    n_unread: int = 0

    @classmethod
    def of(cls, freshness: Freshness) -> "Leftovers":
        """Return those of a project at one look.

        Raises:
            SourceError: no source can be looked at.
            TableError: a table cannot be read.
        """
        shards = leftover_shards(freshness)
        return cls(
            shards,
            _unnamed(freshness, QUERY_EXAMPLES, "query_set", freshness.discovered.query_sets),
            _unnamed(freshness, CHECKPOINTS, "checkpoint", freshness.discovered.looked.names),
            len(stale_training_examples(freshness)) if shards else 0,
        )

    def notes(self, automation: AutomationSettings) -> list[str]:
        """Return what a person should know of them, in sentences."""
        by_fate = {fate: shards_of(self.shards, automation.on_removed, fate) for fate in Fate}
        notes = [_sentence(fate, shards, self.n_unread) for fate, shards in by_fate.items() if shards]
        if self.query_sets:
            notes.append(
                f"{_counted(self.query_sets, 'stored query set')} without a file now: {in_short(self.query_sets)}; the scores "
                "stay as they are"
            )
        if self.checkpoints:
            notes.append(
                f"{_counted(self.checkpoints, 'recorded checkpoint')} not found any more: {in_short(self.checkpoints)}; stored "
                "results stay, and follow no change"
            )
        return notes


def removed_shards(lake: Lake, discovered: Discovered) -> list[str]:
    """Return the shards that the lake still holds and no source has any more.

    Where a source or a file of it cannot be read, its shards may still be there: they stay.
    """
    tables = (TRAINING_EXAMPLES, GRADIENT_FACTORS)
    stored = {shard for schema in tables for shard in file_constants(lake, schema, ["shard"])["shard"]}
    gone = stored - set(discovered.shards)
    return sorted(shard for shard in gone if not shard.startswith(discovered.unread_prefixes))


def leftover_shards(freshness: Freshness) -> tuple[LeftoverShard, ...]:
    """Return the stored shards that no source names any more, sorted; which rows of them stand elsewhere is compared with
    shards that were read since their source changed, so that nothing is taken for superseded before its successor is stored.
    """
    lake, discovered = freshness.lake, freshness.discovered
    gone = removed_shards(lake, discovered)
    if not gone:
        return ()
    hashes = freshness.shard_hashes
    kept = {
        shard: decided
        for shard, shard_hash, decided in lake.read(KEPT_SHARDS, ["shard", "shard_hash", "decided"]).iter_rows()
        if hashes.get(shard) == shard_hash
    }
    stale = stale_training_examples(freshness)
    current = {
        shard: source for shard, source in discovered.shard_sources.items() if shard in hashes and shard not in stale
    }
    # Of rows that stand in several leftover shards, those of one count: of a shard that was decided about, else the first.
    order = sorted(gone, key=lambda shard: (shard not in kept, shard))
    superseded = _compared(lake, order, current, content_hash([order, current, dict(hashes)]))
    counts = dict(lake.read(TRAINING_EXAMPLES, ["shard"], shard=gone).group_by("shard").len().iter_rows())
    return tuple(
        LeftoverShard(shard, counts.get(shard, 0), superseded.get(shard, ()), kept.get(shard)) for shard in gone
    )


def shards_of(shards: Collection[LeftoverShard], on_removed: str, *fates: Fate) -> list[LeftoverShard]:
    """Return the leftover shards that meet one of some fates under a value of `automation.on_removed`."""
    return [one for one in shards if one.fate(on_removed) in fates]


# By lake, what was compared last: a sensor looks again and again while nobody decides.
_last_comparison: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {}


def _compared(
    lake: Lake, order: Sequence[str], current: Mapping[str, str], version: str
) -> Mapping[str, tuple[int, ...]]:
    """Return what `_superseded_rows` does, read once in a process for a version of what is compared."""
    if _last_comparison.get(lake.root, ("",))[0] != version:
        _last_comparison[lake.root] = version, _superseded_rows(lake, order, current)
    return _last_comparison[lake.root][1]


def _superseded_rows(lake: Lake, order: Sequence[str], current: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Return by leftover shard the numbers of its rows that stand in a current shard, or in an earlier one of the order.

    A row stands in another shard where that has its content under the same id. An id that was made of a shard's or source's
    name says nothing of its row, whose content alone counts. And a row whose source has its id in another shard was edited;
    that a shard was of a source is known by its name, and by a row of its file that stands there as it was.

    Args:
        lake: that holds them.
        order: the leftover shards.
        current: the source of each shard that supersedes.
    """
    rows = _with_own_ids(lake.read(TRAINING_EXAMPLES, [*_ROWS, "row"], shard=list(order)))
    found = [
        lake.read(TRAINING_EXAMPLES, _ROWS, **{column: rows[column].unique().to_list()})
        for column in ("content_hash", "example_id")
    ]
    sources = pl.DataFrame(list(current.items()), schema={"shard": pl.String, "source": pl.String}, orient="row")
    others = _with_own_ids(pl.concat(found).unique().join(sources, on="shard"))
    own, made = pl.col("has_own_id"), ~pl.col("has_own_id")
    unchanged = rows.join(others, on=["example_id", "content_hash"])
    edited = (
        rows.filter(own)
        .join(others.filter(own).select("example_id", "source").unique(), on="example_id")
        .filter(pl.col("shard").str.starts_with(pl.col("source") + "-"))
        .with_columns(_FILE)
        .join(unchanged.select(_FILE, "source").unique(), on=["file", "source"], how="semi")
    )
    superseded = [
        unchanged,
        rows.filter(made).join(others, on="content_hash", how="semi"),
        rows.join(others.filter(made), on="content_hash", how="semi"),
        edited,
        _in_earlier_shards(rows, order),
    ]
    numbers = pl.concat(part.select("shard", "row") for part in superseded).unique().sort("shard", "row")
    return {str(shard): tuple(group["row"]) for (shard,), group in numbers.group_by("shard", maintain_order=True)}


def _in_earlier_shards(rows: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """Return the rows that stand in an earlier shard of the order too; within a shard, equal rows are rows of its own."""
    places = pl.DataFrame(list(enumerate(order)), schema={"place": pl.Int64, "shard": pl.String}, orient="row")
    named = rows.join(places, on="shard").with_columns(
        id=pl.when("has_own_id").then("example_id").otherwise(pl.lit(""))
    )
    return named.filter(pl.col("place") > pl.col("place").min().over("id", "content_hash"))


def _with_own_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """Say of each row whether its id is its own, and not made of the name of its shard or source (`<shard>/<row>`)."""
    is_made = pl.any_horizontal(pl.col("example_id").str.starts_with(name + "/") for name in (pl.col("shard"), _FILE))
    return rows.with_columns(has_own_id=~is_made)


def _unnamed(freshness: Freshness, schema: TableSchema, key: str, names: Collection[str]) -> tuple[str, ...]:
    stored = set(file_constants(freshness.lake, schema, [key])[key])
    # What cannot be looked at is there.
    unread = {name for name in stored if f"{key.replace('_', ' ')} {name}" in freshness.discovered.faults}
    return tuple(sorted(stored - {*names} - unread))


def _counted(names: Collection[object], what: str) -> str:
    return f"1 {what} is" if len(names) == 1 else f"{len(names)} {what}s are"


def _sentence(fate: Fate, shards: Sequence[LeftoverShard], n_unread: int) -> str:
    n_rows, n_twice = sum(one.n_rows for one in shards), sum(len(one.superseded) for one in shards)
    begin = f"{_counted(shards, 'stored shard')} named by no source any more: {in_short([one.shard for one in shards])}"
    twice = f"; of {n_rows:,} rows {n_twice:,} stand in other shards too and are scored twice" if n_twice else ""
    match fate:
        case Fate.WITHDRAWN:
            return f"{begin}; withdrawn by `lorif materialize` or the sensor{twice}"
        case Fate.CUT:
            return f"{begin}; `lorif materialize` or the sensor leaves the rows that stand nowhere else{twice}"
        case Fate.KEPT:
            days = sorted({(one.decided or "")[:10] for one in shards})
            return f"{begin}; kept, as was decided on {in_short(days)}, and {n_rows:,} rows scored{twice}"
        case Fate.KEPT_BY_SETTINGS:
            return f"{begin}; {fate.value}, and {n_rows:,} rows scored{twice}"
        case Fate.UNDECIDED if n_unread:
            return (
                f"{begin}; {n_rows:,} rows are still scored. {n_unread:,} shard(s) of the sources are to be read first, which "
                "may have them: `lorif materialize`"
            )
        case Fate.UNDECIDED:
            return (
                f"{begin}; {n_rows:,} rows that stand nowhere else are still scored. `lorif withdraw` takes them out, "
                "`lorif withdraw --keep` records that they stay"
            )
