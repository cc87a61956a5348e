"""A comparison, assembled from the lake's tables, and its rows for the table of comparisons."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise

import polars as pl
import pyarrow as pa

from lorif_assets.attribution.checkpoints.checkpoint import (
    StoredCheckpoint,
    averaged_checkpoints,
    current_score_versions,
)
from lorif_assets.attribution.checkpoints.compared import Participants, ScoredCheckpoint, participants
from lorif_assets.attribution.scores.score_rows import LOWEST
from lorif_assets.attribution.scores.stored_rankings import RANKINGS, stored_ranking
from lorif_assets.attribution.stored.versions import recalled_version
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.content.query_objectives import asks_for_loss
from lorif_assets.data.passages import asked_and_said, passage_metadata, passage_turns, passages
from lorif_assets.data.stored_examples import stored_shard_hashes
from lorif_assets.errors import MismatchError
from lorif_assets.influcoder.stored import encoder_weights
from lorif_assets.lake.attribution_tables import CHECKPOINT_COMPARISONS, QUERY_SUMMARIES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.comparison.content import DEPTH, ComparisonContent, Example, Passage, QueryHistory, Standing
from lorif_assets.pages.passages import example_parts
from lorif_assets.project import Project


def assemble(project: Project, query_set: str, provenance: Mapping[str, str]) -> ComparisonContent:
    """Return what there is to say of a query set's scores at neighbouring checkpoints."""
    # Versions are read before scores: scores that change in the meantime make the comparison stale, not wrong for good.
    lake, recipe = project.lake, project.settings.recipe
    compared = participants(lake, [query_set], recipe)[query_set]
    queries = lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row")
    known = {row["query_id"]: row for row in queries.iter_rows(named=True)}
    of_loss = {name: asks_for_loss(json.loads(row["objective"] or "{}")) for name, row in known.items()}
    standings = [_standings(lake, checkpoint, query_set, of_loss) for checkpoint in compared.checkpoints]
    scored = sorted({query_id for at in standings for query_id in at} - known.keys())
    histories = tuple(
        _history(query_id, known.get(query_id), tuple(at.get(query_id) for at in standings))
        for query_id in [*known, *scored]
        if any(query_id in at for at in standings)
    )
    return ComparisonContent(
        query_set=query_set,
        compared=compared,
        stale_checkpoints=tuple(_stale_checkpoints(project, query_set, compared, queries)),
        queries=histories,
        passages=_moved_passages(lake, histories),
        created=datetime.now(UTC),
        provenance={**provenance, "recipe": recipe.score_hash, "scores": compared.version},
    )


def comparison_rows(content: ComparisonContent, recipe: Recipe, page: str | None = None) -> pa.Table:
    """Return the rows of the table of comparisons: one per two neighbours and query scored at the newer of them.

    Args:
        content: of the page.
        recipe: of the scores.
        page: what each row says of the page, where it is stored.
    """
    return pa.Table.from_pylist(
        [
            {
                "query_set": content.query_set,
                "query_id": query.query_id,
                "from_checkpoint": pair.older.name,
                "to_checkpoint": pair.newer.name,
                "rank_biased_overlap": transition and transition.rank_biased_overlap,
                "relative_overlap": transition and transition.relative_overlap,
                "overlap_at_10": transition and transition.overlap_at_10,
                "entered": transition and _ids(transition.entered),
                "left": transition and _ids(transition.left),
                **({f"{measure}_from": transition and transition.older.value} if query.is_in_set else {}),
                **({f"{measure}_to": newer.value} if query.is_in_set else {}),
                "recipe_hash": recipe.score_hash,
                "computed_from": pair.version,
                "page": page,
            }
            for query in content.queries
            for measure in ("loss_per_token" if query.is_loss else "value",)
            for pair, transition, (_, newer) in zip(
                content.compared.neighbours, query.transitions, pairwise(query.standings), strict=True
            )
            if newer
        ],
        schema=CHECKPOINT_COMPARISONS.columns,
    )


def _standings(
    lake: Lake, checkpoint: ScoredCheckpoint, query_set: str, of_loss: Mapping[str, bool]
) -> dict[str, Standing]:
    """Return each query's value and proponents, whether both ends of its ranking are stored or all of it.

    `of_loss` says which queries ask about a loss, which is told per token.
    """
    plain, relative = (_proponents(stored_ranking(lake, checkpoint.name, query_set, one)) for one in RANKINGS)
    partition = {"checkpoint": checkpoint.name, "query_set": query_set}
    values = lake.read(QUERY_SUMMARIES, ["query_id", "loss", "n_target_tokens"], **partition)
    return {
        query_id: Standing(
            value / n_target_tokens if of_loss.get(query_id, False) else value,
            tuple(plain[query_id]),
            tuple(relative.get(query_id, ())),
        )
        for query_id, value, n_target_tokens in values.iter_rows()
        if query_id in plain
    }


def _proponents(scores: pl.DataFrame) -> dict[str, list[Example]]:
    """Return each query's proponents, the leading one first."""
    ranked = scores.filter((pl.col("side") != LOWEST) & (pl.col("rank") <= DEPTH)).sort("query_id", "rank")
    proponents: dict[str, list[Example]] = {}
    for query_id, shard, example_id in ranked.select("query_id", "shard", "example_id").iter_rows():
        proponents.setdefault(query_id, []).append((shard, example_id))
    return proponents


def _history(query_id: str, query: Mapping[str, str] | None, standings: tuple[Standing | None, ...]) -> QueryHistory:
    if query is None:
        return QueryHistory(query_id, None, "(no longer in the query set)", {}, standings, is_in_set=False)
    return QueryHistory(
        query_id,
        *asked_and_said(query),
        passage_metadata(query),
        standings,
        json.loads(query["objective"] or "{}"),
        passage_turns(query),
    )


def _stale_checkpoints(project: Project, query_set: str, compared: Participants, queries: pl.DataFrame) -> list[str]:
    """Return the checkpoints whose scores are out of date."""
    settings, lake = project.settings, project.lake
    shard_hashes = stored_shard_hashes(lake)
    query_hashes = {query_set: next(iter(queries["query_set_hash"]), "")}

    found = project.checkpoints.complete()

    def current_version(checkpoint: ScoredCheckpoint) -> str | None:
        try:
            stored = StoredCheckpoint.read(lake, checkpoint.name, settings.recipe)
        except MismatchError:
            return None
        averaged = averaged_checkpoints(settings, found, stored)
        version = current_score_versions(settings, project.checkpoints, averaged, shard_hashes, query_hashes)[query_set]
        if not settings.recipe.recalls:
            return version
        return recalled_version(
            version, encoder_weights(lake, [stored.record]).get(checkpoint.name, ""), settings.influcoder.search_hash
        )

    return [checkpoint.name for checkpoint in compared.checkpoints if checkpoint.version != current_version(checkpoint)]


def _moved_passages(lake: Lake, histories: tuple[QueryHistory, ...]) -> dict[Example, Passage]:
    moved = {
        example
        for query in histories
        for transition in query.transitions
        if transition
        for example in (*transition.entered, *transition.left)
    }
    found = passages(lake, moved)
    return {
        example: Passage(example_parts(row), passage_metadata(row) if row else {})
        for example in moved
        for row in (found.get(example),)
    }


def _ids(examples: tuple[Example, ...]) -> str:
    return json.dumps([example_id for _, example_id in examples], ensure_ascii=False)
