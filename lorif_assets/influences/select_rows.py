"""Selecting part of the training data by its influence on stored queries."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl

from lorif_assets.attribution.ask import ModelCache, attributed_checkpoint
from lorif_assets.attribution.checkpoint import StoredCheckpoint
from lorif_assets.attribution.curvatures import curvature_of
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.near_duplicates import FirstTexts
from lorif_assets.data.passages import passage_metadata, whole_text
from lorif_assets.data.shards import survey
from lorif_assets.errors import MismatchError, NotStoredError, SettingsError
from lorif_assets.influences import choice
from lorif_assets.influences.catalogue import scored_checkpoints
from lorif_assets.influences.choice import Groups
from lorif_assets.influences.groups import NO_VALUE
from lorif_assets.influences.metadata_values import values_of
from lorif_assets.influences.selection import SelectedGroup, SelectedGroups, Selection
from lorif_assets.influences.set_influence import Weights, query_weights, set_influence
from lorif_assets.influences.wanted_rows import WantedRows
from lorif_assets.lake.attribution_tables import (
    CHECKPOINTS,
    GRADIENT_FACTORS,
    KFAC_BASES,
    QUERY_EXAMPLES,
    TRAINING_EXAMPLES,
)
from lorif_assets.project import Project
from lorif_assets.tracking.source_commit import source_commit

_PAIR = ["shard", "example_id"]


def select(model_cache: ModelCache, wanted: WantedRows) -> Selection:
    """Return the rows that are wanted of a project's training data; nothing is written.

    Raises:
        NotStoredError: a query set is not scored at the checkpoint, or no example has the column that groups are by.
        SettingsError: there is no such source, or no query has a weight.
        MismatchError: no checkpoint is attributed, factors, curvature and settings do not belong together, or training data
            were read again since they were attributed.
        CheckpointError: the checkpoint is not attributed.
        SourceError: nothing of any source can be read.
    """
    project = model_cache.project
    checkpoint = attributed_checkpoint(project, wanted.checkpoint)
    query_sets = wanted.query_sets or _only_query_set(project, checkpoint)
    wanted = replace(wanted, checkpoint=checkpoint, query_sets=query_sets)
    of_queries = query_weights(project.lake, checkpoint, query_sets, wanted.queries, wanted.query_weight)
    shard_hashes = _shard_hashes(project, checkpoint)
    pieces = _pieces(project, wanted.sources)
    candidates, n_unread = _candidates(model_cache, checkpoint, wanted, of_queries, pieces)
    values = candidates["value"].to_numpy()
    groups = _groups(candidates, wanted.by)
    repeats = _Repeats(candidates if wanted.without_duplicates else None)
    if wanted.choice is None:
        weights = choice.weights(values, groups, repeats)
        chosen = candidates.with_columns(weight=pl.Series(weights)).filter(pl.col("weight") > 0)
    else:
        chosen = candidates[choice.taken(values, groups, wanted.choice, repeats)]
    columns = ["source", "shard", "row", "example_id", "value", *(["weight"] if wanted.weights else [])]
    of = candidates.group_by("source", maintain_order=True).len()
    return Selection(
        project=project,
        wanted=wanted,
        rows=chosen.select(columns),
        of=dict(of.iter_rows()),
        n_repeats=len(repeats.places),
        n_unread=n_unread,
        groups=_selected_groups(candidates, chosen, wanted.by),
        shard_hashes=shard_hashes,
        pieces=pieces,
        origin=_origin(project, checkpoint, wanted, of_queries),
    )


def _only_query_set(project: Project, checkpoint: str) -> dict[str, float]:
    sets = [name for one in scored_checkpoints(project.lake) if one.name == checkpoint for name in one.query_sets]
    if len(sets) != 1:
        raise NotStoredError(
            f"name the query set that rows are to be selected for: at {checkpoint!r} there are scores of "
            f"{', '.join(map(repr, sets)) or 'none'}"
        )
    return {sets[0]: 1.0}


def _shard_hashes(project: Project, checkpoint: str) -> dict[str, str]:
    """Return the hashes of the shards that a checkpoint's factors are of, all of which are stored as they were then."""
    attributed = StoredCheckpoint.read(project.lake, checkpoint, project.settings.recipe).factors.shard_hashes
    stored = dict(project.lake.read(TRAINING_EXAMPLES, ["shard", "shard_hash"]).unique().iter_rows())
    changed = sorted(shard for shard, found in attributed.items() if stored.get(shard, found) != found)
    if changed:
        raise MismatchError(
            f"the shard {changed[0]!r} was read again since {checkpoint!r} was attributed, and its scores are of what it held "
            f"before ({len(changed)} such shards); run `lorif materialize` first"
        )
    return attributed


def _pieces(project: Project, sources: Sequence[str]) -> dict[str, ShardSlice]:
    """Return the shards that sources have now, by name."""
    settings = project.settings
    for name in sources:
        if name not in {source.name for source in settings.sources}:
            there = ", ".join(source.name for source in settings.sources) or "none"
            raise SettingsError(f"there is no source {name!r}; the settings have {there}")
    found = survey([source for source in settings.sources if not sources or source.name in sources], settings.base)
    return {piece.shard: piece for piece in found.shards if not piece.fault}


def _candidates(
    model_cache: ModelCache,
    checkpoint: str,
    wanted: WantedRows,
    of_queries: Weights,
    pieces: Mapping[str, ShardSlice],
) -> tuple[pl.DataFrame, int]:
    """Return the examples to select from (columns of `training_examples`, source and value) in the order of shards and rows.

    With the number of those that are attributed and that no source has, or can be read of, any more.
    """
    examples = set_influence(model_cache, checkpoint, of_queries, wanted.ranking)
    content = [] if wanted.without_duplicates else [*_PAIR, "row", "metadata"]
    stored = model_cache.project.lake.read(TRAINING_EXAMPLES, content or None).join(examples, on=_PAIR, how="inner")
    sources = pl.DataFrame(
        [(shard, piece.source) for shard, piece in pieces.items()],
        schema={"shard": pl.String, "source": pl.String},
        orient="row",
    )
    found = stored.join(sources, on="shard", how="inner").sort("shard", "row")
    if found.is_empty():
        raise NotStoredError(
            "no example of the sources is attributed yet; run `lorif materialize`, or name other sources: those that "
            "shards are stored of are not among them"
        )
    return found, 0 if wanted.sources else stored.height - found.height


def _groups(candidates: pl.DataFrame, column: str | None) -> Groups:
    """Return the places of the examples of each group; those without a value are one too."""
    if column is None:
        return [np.arange(candidates.height)]
    groups: dict[str, list[int]] = {}
    names: dict[str, None] = {}
    for place, metadata in enumerate(candidates["metadata"]):
        values = passage_metadata({"metadata": metadata})
        names |= dict.fromkeys(values)
        for name in values_of(values, column) or (NO_VALUE,):
            groups.setdefault(name, []).append(place)
    if column not in names:
        there = f"there are {', '.join(names)}" if names else "they have no metadata"
        raise NotStoredError(f"no training example has the metadata column {column!r} to select by; {there}")
    return [np.array(places) for _, places in sorted(groups.items())]


def _selected_groups(candidates: pl.DataFrame, chosen: pl.DataFrame, column: str | None) -> SelectedGroups | None:
    """Count what was chosen of each value of a metadata column; None: of the first that an example has."""
    column = column or next((name for metadata in _metadata(candidates) for name in metadata), None)
    if column is None:
        return None
    of, taken = (_counted(_metadata(rows), column) for rows in (candidates, chosen))
    found = (SelectedGroup(name, taken[name], n_examples) for name, n_examples in of.items())
    return SelectedGroups(
        column, tuple(sorted(found, key=lambda group: (-group.n_rows, -group.n_examples, group.name)))
    )


def _metadata(examples: pl.DataFrame) -> Iterable[Mapping[str, Any]]:
    return (passage_metadata({"metadata": metadata}) for metadata in examples["metadata"])


def _counted(examples: Iterable[Mapping[str, Any]], column: str) -> Counter[str]:
    return Counter(name for metadata in examples for name in values_of(metadata, column) or (NO_VALUE,))


class _Repeats:
    """Whether an example nearly repeats one that was asked about before; without examples, none does.

    `places` has those that do.
    """

    def __init__(self, examples: pl.DataFrame | None) -> None:
        self._examples, self._first = examples, FirstTexts()
        self.places: set[int] = set()

    def __call__(self, place: int) -> bool:
        if self._examples is None:
            return False
        repeats = self._first.first(place, whole_text(self._examples.row(place, named=True))) != place
        if repeats:
            self.places.add(place)
        return repeats


def _origin(project: Project, checkpoint: str, wanted: WantedRows, of_queries: Weights) -> dict[str, Any]:
    lake, recipe = project.lake, project.settings.recipe
    record = StoredCheckpoint.read(lake, checkpoint, recipe).record
    hashes = dict(lake.read(QUERY_EXAMPLES, ["query_set", "query_set_hash"]).unique().iter_rows())
    tables = [TRAINING_EXAMPLES, QUERY_EXAMPLES, CHECKPOINTS, KFAC_BASES, GRADIENT_FACTORS, curvature_of(recipe).table]
    versions = {schema.name: table.version() for schema in tables if (table := lake.table(schema)) is not None}
    return {
        "command": wanted.command,
        "selected": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": {"name": record.name, "step": record.step, "weights_hash": record.weights_hash},
        "query_sets": {
            name: {"query_set_hash": hashes[name], "weights": dict(of_set)} for name, of_set in of_queries.items()
        },
        "recipe_hash": recipe.score_hash,
        "lake": {"root": lake.root, "versions": versions},
        "commit": source_commit(project.settings.base) or None,
        "lorif_assets": version("lorif-assets"),
    }
