"""The scored examples of one query, as a ranking with two sides."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import polars as pl

from lorif_assets.attribution.scores.score_rows import EVERY, HIGHEST, LOWEST
from lorif_assets.attribution.scores.stored_rankings import Ranking, check_ranking, stored_ranking
from lorif_assets.config.methods import MethodName
from lorif_assets.errors import NotStoredError
from lorif_assets.influences.catalogue import ScoredQuery, scored_methods
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES
from lorif_assets.lake.lake import Lake

_BINS = 40
_COLUMNS = ["side", "rank", "shard", "example_id", "score"]


class Side(StrEnum):
    """One end of a ranking."""

    PROPONENTS = "proponents"
    OPPONENTS = "opponents"


@dataclass(frozen=True)
class Bin:
    """How many examples have a value from `low` to `high`."""

    low: float
    high: float
    n_examples: int


@dataclass(frozen=True, eq=False)
class Ranked:
    """Scored examples of one query.

    `rows` have side, rank, shard, example_id, `value` (what the ranking is by), and whichever of score and relative_score are
    stored. `spread` is the standard deviation of the values over all examples, None where it is not known.
    """

    rows: pl.DataFrame
    n_examples: int
    spread: float | None

    @property
    def is_complete(self) -> bool:
        """Whether every example that was scored is listed."""
        return bool((self.rows["side"] == EVERY).any()) or (
            self.rows.select("shard", "example_id").n_unique() >= self.n_examples
        )

    def side(self, side: Side) -> pl.DataFrame:
        """Return the rows of one side, ranked from 1: of its end of the ranking, those that speak for it, or against it.

        The lowest scores of a query may all be positive; they make no opponents.
        """
        is_proponent = side is Side.PROPONENTS
        speaking = self.rows.filter(pl.col("value") > 0 if is_proponent else pl.col("value") < 0)
        if not (self.rows["side"] == EVERY).any():
            return speaking.filter(pl.col("side") == (HIGHEST if is_proponent else LOWEST)).sort("rank")
        ordered = speaking.sort("value", descending=is_proponent, maintain_order=True)
        return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1))

    @property
    def distribution(self) -> tuple["Bin", ...]:
        """How many examples have which values, in bins of equal width from the lowest to the highest; none of a part."""
        values = self.rows["value"].filter(self.rows["value"].is_finite())
        if not self.is_complete or self.rows["side"].n_unique() > 1 or values.n_unique() < 2:
            return ()
        counts, edges = np.histogram(values.to_numpy(), bins=_BINS)
        return tuple(
            Bin(float(low), float(high), int(count))
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        )

    @property
    def largest(self) -> float:
        """Largest magnitude of a value: the scale of bars."""
        magnitudes = self.rows["value"].abs().filter(self.rows["value"].is_finite())
        return float(magnitudes.max() or 0.0)  # type: ignore[arg-type]


def ranked_query(
    lake: Lake, checkpoint: str, query: ScoredQuery, ranking: Ranking, method: str = MethodName.LORIF
) -> Ranked:
    """Return the stored ranking of a query.

    Args:
        lake: where it is stored.
        checkpoint: that was scored.
        query: of it.
        ranking: "plain" or "relative"; methods other than LoRIF have a plain one alone.
        method: LoRIF, or one whose scores an evaluation kept.

    Raises:
        SettingsError: there is no such ranking.
        NotStoredError: it is not stored; the message says what is.
    """
    check_ranking(ranking)
    if method != MethodName.LORIF:
        return _evaluated(lake, checkpoint, query, method, ranking)
    rows = stored_ranking(lake, checkpoint, query.query_set, ranking).filter(pl.col("query_id") == query.query_id)
    if rows.is_empty():
        raise NotStoredError(
            f"no {ranking} ranking of {query.query_id!r} is stored at {checkpoint!r}: its scores are from a version without "
            "one; materialize `query_scores` for this query set again"
        )
    value, spread = ("score", query.score_std) if ranking == "plain" else ("relative_score", None)
    return Ranked(rows.select(*_COLUMNS, "relative_score", value=pl.col(value)), query.n_examples, spread)


def ranked_answer(table: pl.DataFrame, ranking: Ranking, n_examples: int, figures: dict[str, Any]) -> Ranked:
    """Return the ranking of an answer that was just computed, from its table of either ranking."""
    value = "score" if ranking == "plain" else "relative_score"
    return Ranked(
        table.select(*_COLUMNS, value=pl.col(value)), n_examples, figures["score_std"] if ranking == "plain" else None
    )


def _evaluated(lake: Lake, checkpoint: str, query: ScoredQuery, method: str, ranking: Ranking) -> Ranked:
    methods = scored_methods(lake, checkpoint, query.query_set)
    if method not in methods or ranking != "plain":
        raise NotStoredError(
            f"no {ranking} ranking of {query.query_id!r} by {method!r} is stored at {checkpoint!r}; there is a plain one by "
            f"{', '.join(methods)}; `lorif evaluate` keeps the scores of other methods"
        )
    scores = lake.read(
        EVALUATED_SCORES,
        ["example_id", "score"],
        checkpoint=checkpoint,
        query_set=query.query_set,
        method=method,
        query_id=query.query_id,
    )
    shards = lake.read(TRAINING_EXAMPLES, ["shard", "example_id"]).unique("example_id", maintain_order=True)
    rows = (
        scores.join(shards, on="example_id", how="inner")
        .sort("score", descending=True, maintain_order=True)
        .with_columns(side=pl.lit(EVERY), rank=pl.int_range(1, pl.len() + 1))
    )
    deviation = rows["score"].std()
    return Ranked(
        rows.select(*_COLUMNS, value=pl.col("score")),
        rows.height,
        float(deviation) if isinstance(deviation, float) else None,
    )
