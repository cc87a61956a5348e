"""Selecting part of the training data by the names of rows: their ids, or shard/id where several rows share one."""

from collections.abc import Sequence

import polars as pl

from lorif_assets.config.content_hash import content_hash
from lorif_assets.errors import NotStoredError, SettingsError
from lorif_assets.influences.selectable_rows import (
    common_origin,
    numbers_by_source,
    of_sources,
    selected_groups,
    source_shards,
)
from lorif_assets.influences.selection import Selection
from lorif_assets.influences.wanted_rows import WantedRows
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.project import Project

_MOST_NAMED = 5


def named_rows(project: Project, wanted: WantedRows) -> Selection:
    """Return the rows with the wanted ids, or all but those, of the stored training data; nothing is written.

    Nothing has to be attributed. The rows have no value, as nothing was ranked.

    Raises:
        NotStoredError: an id is none of a stored row of the sources.
        SettingsError: an id is that of several rows, or there is no such source.
        SourceError: nothing of any source can be read.
    """
    shards = source_shards(project, wanted.sources)
    columns = ["shard", "example_id", "row", "metadata", "shard_hash"]
    stored = project.lake.read(TRAINING_EXAMPLES, columns)
    examples = of_sources(stored, shards).with_columns(value=pl.lit(None, pl.Float64)).with_row_index("place")
    places = _places(examples, wanted.ids)
    chosen = examples.filter(pl.col("place").is_in(places) != wanted.exclude)
    return Selection(
        project=project,
        wanted=wanted,
        rows=chosen.select("source", "shard", "row", "example_id", "value"),
        of=numbers_by_source(examples),
        n_repeats=0,
        n_unread=0 if wanted.sources else stored.height - examples.height,
        groups=selected_groups(examples, chosen, None),
        shard_hashes=dict(stored.select("shard", "shard_hash").unique().iter_rows()),
        pieces=shards,
        origin={
            **common_origin(project, wanted, [TRAINING_EXAMPLES]),
            "ids": {"number": len(places), "hash": content_hash(sorted(wanted.ids))},
        },
    )


def _places(examples: pl.DataFrame, ids: Sequence[str]) -> list[int]:
    """Return the place of the row that each id names, in their order."""
    names = pl.DataFrame({"name": ids}, schema={"name": pl.String}).unique(maintain_order=True)
    both = (pl.col("example_id"), pl.concat_str("shard", pl.lit("/"), "example_id"))
    by_id, by_both = (
        names.join(examples.select("place", "shard", name=name), on="name", how="inner", maintain_order="left")
        for name in both
    )
    found = pl.concat([by_both, by_id.join(by_both, on="name", how="anti")])
    if not (missing := names.join(found, on="name", how="anti")["name"]).is_empty():
        raise NotStoredError(
            f"{len(missing):,} of {names.height:,} ids {'is' if len(missing) == 1 else 'are'} of no row of the stored training "
            f"data: {_listed(missing.to_list())}. Give ids, or shard/id, as `lorif attribute` and the explorer show them, and "
            "leave these out; rows that were set aside are not stored"
        )
    repeated = found.filter(pl.col("name").is_duplicated())
    if not repeated.is_empty():
        name = repeated["name"][0]
        shards = repeated.filter(pl.col("name") == name)["shard"].to_list()
        raise SettingsError(
            f"{name!r} is the id of {len(shards)} rows, in the shards {_listed(shards)}: give the shard too, as "
            f"{shards[0]}/{name}"
        )
    return found["place"].unique(maintain_order=True).to_list()


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (f" and {more:,} more" if more > 0 else "")
