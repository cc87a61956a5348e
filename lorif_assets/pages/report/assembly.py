"""A report, assembled from the lake's tables."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from lorif_assets.attribution.checkpoints.averaging_weights import averaging_in_words
from lorif_assets.attribution.checkpoints.compared import participants
from lorif_assets.attribution.checkpoints.learned_by_heart import REMEDY, learned_by_heart
from lorif_assets.attribution.scores.score_rows import LOWEST
from lorif_assets.attribution.scores.stored_rankings import (
    RANKINGS,
    Ranking,
    leading_rows,
    rows_beside_scores,
    stored_ranking,
)
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.near_duplicates import near_duplicates
from lorif_assets.data.passages import (
    asked_and_said,
    passage_metadata,
    passage_text,
    passage_turns,
    passages,
)
from lorif_assets.data.rows.rejected import rejected_counts
from lorif_assets.data.rows.rejection_reasons import rows_set_aside
from lorif_assets.errors import MismatchError
from lorif_assets.influences.exact_ranks import ExactRank, exact_ranks
from lorif_assets.lake.attribution_tables import GROUP_SCORES, QUERY_SUMMARIES, TOKEN_SCORES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.addresses import comparison_link
from lorif_assets.pages.passages import WITHDRAWN, example_parts
from lorif_assets.pages.report.content import (
    GroupInfluence,
    Influence,
    LayerCurvature,
    NearDuplicate,
    QueryInfluences,
    ReportContent,
)
from lorif_assets.pages.report.layers import ShownLayers
from lorif_assets.pages.token_colours import PairTokens, pair_tokens

_SHOWN = 10
_SHOWN_GROUPS = 8
_LOOKED_AT = 3 * _SHOWN
"""Ranks of a list in which near-duplicates are folded."""


@dataclass(frozen=True)
class _Details:
    """What is stored beside scores: of pairs, their tokens; and of examples on a side, their exact ranks."""

    tokens: Mapping[tuple[str, str, str], PairTokens] = field(default_factory=dict)
    exact: Mapping[tuple[str, str, str, str], ExactRank] = field(default_factory=dict)


def assemble(
    lake: Lake,
    record: CheckpointRecord,
    query_set: str,
    recipe: Recipe,
    provenance: Mapping[str, str],
    notice: str | None = None,
) -> ReportContent:
    """Return the report's content of one checkpoint and query set; `notice` is what to know of the checkpoint's files.

    Raises:
        MismatchError: there are no scores, or they were computed under another recipe.
    """
    partition = {"checkpoint": record.name, "query_set": query_set}
    summaries = lake.read(QUERY_SUMMARIES, **partition)
    if summaries.is_empty():
        raise MismatchError(f"{record.name!r} has no scores for {query_set!r}; materialize `query_scores` first")
    if set(summaries["recipe_hash"]) != {recipe.score_hash}:
        raise MismatchError(
            f"the scores of {record.name!r} for {query_set!r} were computed under the recipe {summaries['recipe_hash'][0]}, "
            f"the settings are {recipe.score_hash}; materialize `query_scores` again"
        )
    details = _Details(_tokens(lake, record.name, query_set), exact_ranks(lake, record.name, query_set))
    influences, relative = (
        _influences(lake, record.name, query_set, ranking, details if ranking == "plain" else _Details())
        for ranking in RANKINGS
    )
    groups = _groups(lake, record.name, query_set)
    queries = lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row").join(summaries, on="query_id", how="inner")
    return ReportContent(
        checkpoint=record.name,
        query_set=query_set,
        model_type=record.model_type,
        n_parameters=record.n_parameters,
        step=record.step,
        n_examples=int(summaries["n_examples"][0]),
        # Empty fields (no patterns, no oversampling named) say nothing, but for the length.
        recipe={
            key.replace("_", " "): _shown(value)
            for key, value in (("max_length", "the model's context, up to 2,048"), *recipe)
            if key in recipe.fields_in_use and value not in (None, ())
        },
        layers=_layers(lake, record, recipe),
        queries=tuple(
            QueryInfluences(
                query_id=row["query_id"],
                prompt=said[0],
                completion=said[1],
                metadata=passage_metadata(row),
                turns=passage_turns(row),
                asked=json.loads(row["objective"] or "{}"),
                groups=groups.get(row["query_id"], {}),
                loss=row["loss"],
                n_target_tokens=row["n_target_tokens"],
                n_examples=row["n_examples"],
                score_std=row["score_std"],
                top_10_share=row["top_10_share"],
                top_100_share=row["top_100_share"],
                proponents=tuple(influences.get((row["query_id"], "highest"), ())),
                opponents=tuple(influences.get((row["query_id"], "lowest"), ())),
                relative_proponents=tuple(relative.get((row["query_id"], "highest"), ())),
                relative_opponents=tuple(relative.get((row["query_id"], "lowest"), ())),
            )
            for row in queries.iter_rows(named=True)
            for said in (asked_and_said(row),)
        ),
        created=datetime.now(UTC),
        comparison=comparison_link(query_set)
        if participants(lake, [query_set], recipe)[query_set].neighbours
        else None,
        rejected=tuple(_rejected(lake, record.name, query_set)),
        notices=(
            *([notice] if notice else ()),
            *_notices(lake, record.name, summaries["averaged"][0], recipe),
        ),
        provenance={**provenance, "weights": record.weights_hash, "scores": summaries["computed_from"][0]},
    )


def _notices(lake: Lake, checkpoint: str, averaged: str | None, recipe: Recipe) -> Iterator[str]:
    if averaged is not None:
        yield f"{averaging_in_words(json.loads(averaged), recipe)}."
    for one in learned_by_heart(lake, checkpoint):
        if one.is_noteworthy:
            yield f"{one.words}; {REMEDY}."


def _influences(
    lake: Lake,
    checkpoint: str,
    query_set: str,
    ranking: Ranking,
    details: _Details,
) -> dict[tuple[str, str], list[Influence]]:
    """Return the leading examples of a ranking by query and side."""
    column = "score" if ranking == "plain" else "relative_score"
    leading = leading_rows(stored_ranking(lake, checkpoint, query_set, ranking), _LOOKED_AT)
    shown = speaking(leading, column)
    found = passages(lake, shown.select("shard", "example_id").iter_rows())
    influences: dict[tuple[str, str], list[Influence]] = {}
    for (query_id, side), of_side in shown.group_by("query_id", "side", maintain_order=True):
        rows = of_side.to_dicts()
        listed = [found.get((row["shard"], row["example_id"])) for row in rows]
        texts = [passage_text(passage) if passage else WITHDRAWN for passage in listed]
        influences[str(query_id), str(side)] = [
            Influence(
                rank=row["shown_rank"],
                example_id=row["example_id"],
                shard=row["shard"],
                score=row[column],
                parts=example_parts(listed[first]),
                metadata=passage_metadata(passage) if (passage := listed[first]) else {},
                tokens=details.tokens.get((row["query_id"], row["shard"], row["example_id"])),
                exact=details.exact.get((row["query_id"], row["side"], row["shard"], row["example_id"])),
                duplicates=tuple(
                    NearDuplicate(rows[at]["shown_rank"], rows[at]["example_id"], rows[at][column]) for at in others
                ),
            )
            for first, *others in _folded(texts)
            if (row := rows[first])
        ]
    return influences


def speaking(leading: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return the rows that speak for their side: where all scores of a query are positive, the lowest are no opponents."""
    value = pl.col(column)
    return leading.filter(pl.when(pl.col("side") == LOWEST).then(value < 0).otherwise(value > 0))


def _folded(texts: Sequence[str]) -> list[list[int]]:
    """Return what is shown of a list: its first groups of near-duplicates; an example that was withdrawn is its own."""
    groups = near_duplicates([f"{text} {at}" if text == WITHDRAWN else text for at, text in enumerate(texts)])
    return groups[:_SHOWN]


def _groups(lake: Lake, checkpoint: str, query_set: str) -> dict[str, dict[str, tuple[GroupInfluence, ...]]]:
    """Return by query and column the groups with the largest sums by magnitude; none that belong to other scores."""
    rows = rows_beside_scores(lake, GROUP_SCORES, checkpoint, query_set)
    groups: dict[str, dict[str, tuple[GroupInfluence, ...]]] = {}
    for (query_id, column), of_column in rows.group_by("query_id", "column", maintain_order=True):
        largest = of_column.top_k(_SHOWN_GROUPS, by=pl.col("score_sum").abs()).sort("score_sum", descending=True)
        shown = largest.select(
            "value", "n_examples", "score_sum", pl.col("low", "high").fill_null(math.nan), "noise_share"
        )
        groups.setdefault(str(query_id), {})[str(column)] = tuple(GroupInfluence(*row) for row in shown.iter_rows())
    return groups


def _tokens(lake: Lake, checkpoint: str, query_set: str) -> dict[tuple[str, str, str], PairTokens]:
    """Return what is stored of pairs' tokens, by query, shard and example; none that belong to other scores."""
    rows = rows_beside_scores(lake, TOKEN_SCORES, checkpoint, query_set)
    return {
        (str(query_id), str(shard), str(example_id)): pair_tokens(of_pair)
        for (query_id, shard, example_id), of_pair in rows.group_by("query_id", "shard", "example_id")
    }


def _rejected(lake: Lake, checkpoint: str, query_set: str) -> Iterator[str]:
    for stage, what, of_set in (
        ("training_examples", "Training data", None),
        ("gradient_factors", "Training examples at this checkpoint", None),
        ("query_examples", "Query set", query_set),
        ("query_scores", "Queries at this checkpoint", query_set),
    ):
        if counts := rejected_counts(lake, stage, [checkpoint], of_set):
            yield f"{what}: {rows_set_aside(counts)}."


def _shown(value: object) -> str | int | float:
    if isinstance(value, str | int | float):
        return value
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _layers(lake: Lake, record: CheckpointRecord, recipe: Recipe) -> tuple[LayerCurvature, ...]:
    table = curvature_of(recipe).table
    rows = {row["layer"]: row for row in lake.read(table, checkpoint=record.name).to_dicts()}
    layers = ShownLayers.of(lake, record.name, recipe)
    return tuple(layers.shown(rows[layer]) for layer in record.layer_shapes if layer in rows and layers.has(layer))
