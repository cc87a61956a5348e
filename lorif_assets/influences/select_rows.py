"""Selecting part of the training data: by its influence on stored queries, or by name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from lorif_assets.attribution.ask import ModelCache, attributed_checkpoint
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.near_duplicates import FirstTexts
from lorif_assets.data.passages import passage_metadata, whole_text
from lorif_assets.data.stored_examples import stored_query_set_hashes, stored_shard_hashes
from lorif_assets.errors import MismatchError, NotStoredError
from lorif_assets.influences import choice
from lorif_assets.influences.catalogue import scored_checkpoints
from lorif_assets.influences.choice import Groups
from lorif_assets.influences.groups import NO_VALUE
from lorif_assets.influences.metadata_values import values_of
from lorif_assets.influences.named_rows import named_rows
from lorif_assets.influences.selectable_rows import (
    common_origin,
    numbers_by_source,
    of_sources,
    selected_groups,
    source_shards,
)
from lorif_assets.influences.selection import Selection
from lorif_assets.influences.set_influence import Weights, query_weights, set_influence
from lorif_assets.influences.wanted_rows import WantedRows
from lorif_assets.lake.attribution_tables import CHECKPOINTS, GRADIENT_FACTORS, KFAC_BASES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.project import Project

_PAIR = ["shard", "example_id"]


def select(model_cache: ModelCache, wanted: WantedRows) -> Selection:
    """Return the rows that are wanted of a project's training data; nothing is written.

    Raises:
        NotStoredError: a query set is not scored at the checkpoint, no example has the column that groups are by, or an id
            is none of an example.
        SettingsError: there is no such source, or no query has a weight.
        MismatchError: no checkpoint is attributed, factors, curvature and settings do not belong together, or training data
            were read again since they were attributed.
        CheckpointError: the checkpoint is not attributed.
        SourceError: nothing of any source can be read.
    """
    project = model_cache.project
    if wanted.ids:
        return named_rows(project, wanted)
    checkpoint = attributed_checkpoint(project, wanted.checkpoint)
    query_sets = wanted.query_sets or _only_query_set(project, checkpoint)
    wanted = replace(wanted, checkpoint=checkpoint, query_sets=query_sets)
    of_queries = query_weights(project.lake, checkpoint, query_sets, wanted.queries, wanted.query_weight)
    shard_hashes = _shard_hashes(project, checkpoint)
    pieces = source_shards(project, wanted.sources)
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
    return Selection(
        project=project,
        wanted=wanted,
        rows=chosen.select(columns),
        of=numbers_by_source(candidates),
        n_repeats=len(repeats.places),
        n_unread=n_unread,
        groups=selected_groups(candidates, chosen, wanted.by),
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
    stored = stored_shard_hashes(project.lake)
    changed = sorted(shard for shard, found in attributed.items() if stored.get(shard, found) != found)
    if changed:
        raise MismatchError(
            f"the shard {changed[0]!r} was read again since {checkpoint!r} was attributed, and its scores are of what it held "
            f"before ({len(changed)} such shards); run `lorif materialize` first"
        )
    return attributed


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
    found = of_sources(stored, pieces)
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
    hashes = stored_query_set_hashes(lake)
    tables = [TRAINING_EXAMPLES, QUERY_EXAMPLES, CHECKPOINTS, KFAC_BASES, GRADIENT_FACTORS, curvature_of(recipe).table]
    return {
        **common_origin(project, wanted, tables),
        "checkpoint": {"name": record.name, "step": record.step, "weights_hash": record.weights_hash},
        "query_sets": {
            name: {"query_set_hash": hashes[name], "weights": dict(of_set)} for name, of_set in of_queries.items()
        },
        "recipe_hash": recipe.score_hash,
    }
