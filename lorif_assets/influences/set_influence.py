"""The influence of every training example on a weighted set of stored queries."""

import logging
import math
from collections.abc import Collection, Mapping
from typing import Literal, get_args

import numpy as np
import polars as pl
from jaxtyping import Float

from lorif_assets.attribution.ask import ModelCache, score_questions
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.scores.score_rows import MOST_PAIRS
from lorif_assets.data.passages import passage_text
from lorif_assets.errors import NotStoredError, SettingsError
from lorif_assets.evaluation.methods.lexical import LexicalIndex
from lorif_assets.influences.catalogue import ScoredQuery, query_texts, scored_queries
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.mathematics.scores.rank_fusion import reciprocal_rank_fusion
from lorif_assets.mathematics.scores.summed_influence import summed_influence

_LOG = logging.getLogger(__name__)

SetRanking = Literal["plain", "relative", "hybrid"]
SET_RANKINGS: tuple[SetRanking, ...] = get_args(SetRanking)
"""By score; by RelatIF; by the ranks of RelatIF and BM25 together."""
_PAIR = ["shard", "example_id"]

Weights = Mapping[str, Mapping[str, float]]
"""By query set and query."""


def query_weights(
    lake: Lake, checkpoint: str, query_sets: Mapping[str, float], queries: Collection[str], column: str | None
) -> Weights:
    """Return the weight of each query of some sets that are scored at a checkpoint.

    Args:
        lake: where they are stored.
        checkpoint: at which they are scored.
        query_sets: weight by name.
        queries: ids of those that count; none: all.
        column: of the queries' metadata, a number that is multiplied with it; without one, queries of a set count alike.

    Raises:
        NotStoredError: a set, or a query, is not scored there; the message says what is.
        SettingsError: a weight is no finite number, or all are zero.
    """
    scored = {name: scored_queries(lake, checkpoint, name) for name in query_sets}
    known = {query.query_id for of_set in scored.values() for query in of_set}
    if unknown := sorted(set(queries) - known):
        raise NotStoredError(
            f"no query {unknown[0]!r} of {', '.join(map(repr, query_sets))} is scored at {checkpoint!r}; the {len(known)} that "
            f"are begin with {', '.join(map(repr, sorted(known)[:5]))}"
        )
    weights = {
        name: {
            query.query_id: weight * _factor(query, column)
            for query in scored[name]
            if not queries or query.query_id in queries
        }
        for name, weight in query_sets.items()
    }
    for name, of_set in weights.items():
        for query_id, weight in of_set.items():
            if not math.isfinite(weight):
                raise SettingsError(
                    f"the query {query_id!r} of {name!r} would have the weight {weight}: give it a finite one"
                )
    if not any(any(of_set.values()) for of_set in weights.values()):
        raise SettingsError("the weight of every query is 0: nothing can be ranked by their influence")
    return weights


def set_influence(model_cache: ModelCache, checkpoint: str, weights: Weights, ranking: SetRanking) -> pl.DataFrame:
    """Return the influence of every example that a checkpoint has factors of: shard, example_id and value, by both names.

    A value is the mean over the queries, with their weights, of scores over their standard deviation
    (docs/select.md: what it ranks by). A score that is not finite counts as 0.

    Args:
        model_cache: of the project.
        checkpoint: name of an attributed one.
        weights: of stored queries.
        ranking: of each query.

    Raises:
        SettingsError: there is no such ranking.
        MismatchError: factors, preconditioners and settings do not match.
        SourceError: a query has no token that carries loss.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    if ranking not in SET_RANKINGS:
        raise SettingsError(f"`ranking` is one of {', '.join(SET_RANKINGS)}; found {ranking!r}")
    lake, recipe = model_cache.project.lake, model_cache.project.settings.recipe
    n_examples = StoredCheckpoint.read(lake, checkpoint, recipe).factors.n_examples
    examples, lexical, total = pl.DataFrame(), None, np.zeros(n_examples)
    for query_set, of_set in weights.items():
        rows = lake.read(QUERY_EXAMPLES, query_set=query_set).filter(pl.col("query_id").is_in(list(of_set)))
        texts = query_texts(lake, query_set) if ranking == "hybrid" else {}
        for part in rows.sort("row").iter_slices(max(1, MOST_PAIRS // max(1, n_examples))):
            for scored in score_questions(model_cache, checkpoint, part.to_arrow(), "all"):
                for query_id, cuts in scored.cuts.items():
                    _LOG.warning("The query %r of %r is cut: %s", query_id, query_set, "; ".join(cuts))
                pairs = scored.scores.sort("query_id", *_PAIR)
                queries = pairs["query_id"].unique(maintain_order=True).to_list()
                examples = pairs.head(n_examples).select(_PAIR)
                scores = _matrix(pairs, "score" if ranking == "plain" else "relative_score", len(queries))
                if ranking == "hybrid":
                    lexical = lexical or LexicalIndex(_texts(lake, examples))
                    scores = reciprocal_rank_fusion([scores, lexical.scores([texts[name] for name in queries])])
                total += summed_influence(scores, np.array([of_set[name] for name in queries]))
    size = sum(abs(weight) for of_set in weights.values() for weight in of_set.values())
    return examples.with_columns(value=pl.Series(total / size, dtype=pl.Float64))


def _matrix(pairs: pl.DataFrame, column: str, n_queries: int) -> Float[np.ndarray, "Q N"]:
    scores = np.nan_to_num(pairs[column].to_numpy().astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return scores.reshape(n_queries, -1)


def _texts(lake: Lake, examples: pl.DataFrame) -> list[str]:
    rows = examples.join(lake.read(TRAINING_EXAMPLES), on=_PAIR, how="left", maintain_order="left")
    return [passage_text(row) if row["format"] else "" for row in rows.iter_rows(named=True)]


def _factor(query: ScoredQuery, column: str | None) -> float:
    if column is None:
        return 1.0
    value = query.metadata.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        found = f"it has {', '.join(query.metadata) or 'no metadata'}" if value is None else f"found {value!r}"
        raise SettingsError(
            f"the query {query.query_id!r} of {query.query_set!r} has no number in the column {column!r} to be weighted by: "
            f"{found}"
        )
    return float(value)
