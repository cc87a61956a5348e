"""Influence summed over examples that share a value of their metadata, with an interval by the standard error."""

import json
from collections.abc import Mapping

import polars as pl

WITHOUT_VALUE = "(none)"
_Z = 1.959964
"""Of a 95 % interval."""
GROUP_ROWS = {
    "query_id": pl.String,
    "column": pl.String,
    "value": pl.String,
    "n_examples": pl.Int64,
    "score_sum": pl.Float64,
    "score_mean": pl.Float64,
    "standard_error": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


def group_sums(scores: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return, for each query and value of a column of metadata, the sum of the scores of the examples that have it.

    The standard error is of the sum, sqrt(n) times the standard deviation within the group, as if its examples were drawn
    from more of their kind; the interval is 1.96 times it on either side. A group of one example has none.

    Args:
        scores: query_id, score and metadata (a JSON object, or null) of pairs.
        column: of the metadata. A list or an object counts as one value, its JSON text; examples without one as `(none)`.

    Returns:
        The columns of `GROUP_ROWS`, for each query the largest sum first.
    """
    distinct = scores["metadata"].unique().to_list()
    values = pl.DataFrame(
        {"metadata": distinct, "value": [_value(text, column) for text in distinct]},
        schema={"metadata": pl.String, "value": pl.String},
    )
    score = pl.col("score").cast(pl.Float64)
    summed = (
        scores.join(values, on="metadata", how="left", nulls_equal=True)
        .group_by("query_id", "value")
        .agg(
            n_examples=pl.len().cast(pl.Int64),
            score_sum=score.sum(),
            score_mean=score.mean(),
            standard_error=score.std() * pl.len().sqrt(),
        )
        .with_columns(column=pl.lit(column))
    )
    return (
        summed.with_columns(
            low=pl.col("score_sum") - _Z * pl.col("standard_error"),
            high=pl.col("score_sum") + _Z * pl.col("standard_error"),
        )
        .select(pl.col(name).cast(kind) for name, kind in GROUP_ROWS.items())
        .sort(["query_id", "score_sum", "value"], descending=[False, True, False])
    )


def _value(metadata: str | None, column: str) -> str:
    found: Mapping[str, object] = json.loads(metadata or "{}")
    value = found.get(column)
    if value is None or value == "":
        return WITHOUT_VALUE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
