"""Rows of score tables: the two ends of each query's ranking, or every pair."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.scores.relative_influence import Rankings
    from lorif_assets.mathematics.scores.scoring import ScoreExtremes

HIGHEST, LOWEST, EVERY = "highest", "lowest", "all"

_SCHEMA = {
    "query_id": pl.String,
    "side": pl.String,
    "rank": pl.Int32,
    "example_id": pl.String,
    "shard": pl.String,
    "score": pl.Float32,
}
RELATIVE_SCHEMA = {**_SCHEMA, "relative_score": pl.Float32}
"""Columns of rows with relative influence."""
MOST_PAIRS = 1 << 24
"""Pairs whose scores are held as rows at once."""


def listed_positions(extremes: "ScoreExtremes", k: int) -> list[int]:
    """Return the positions of the k highest and k lowest examples of every query."""
    return [position for _, positions in extremes.sides for position in positions[:, :k].flatten().tolist()]


def extreme_pairs(
    names: Sequence[str], extremes: "ScoreExtremes", k: int, examples: Mapping[int, tuple[str, str]]
) -> pl.DataFrame:
    """Return the k highest and k lowest scores of each query as rows of a score table.

    Args:
        names: of the queries.
        extremes: at least k scores of each side.
        k: how many.
        examples: id and shard of each listed position.
    """
    return pl.DataFrame(
        [
            (name, side, rank, *examples[position], score)
            for side, (scores, positions) in zip((HIGHEST, LOWEST), extremes.sides, strict=True)
            for name, row, at in zip(names, scores[:, :k].tolist(), positions[:, :k].tolist(), strict=True)
            for rank, (score, position) in enumerate(zip(row, at, strict=True), start=1)
        ],
        schema=_SCHEMA,
        orient="row",
    )


def plain_rows(
    names: Sequence[str], rankings: "Rankings", k: int, examples: Mapping[int, tuple[str, str]]
) -> pl.DataFrame:
    """Return the two ends of each query's ranking by score, each row with its relative influence too."""
    from lorif_assets.mathematics.scores.self_influence import relative_influence

    extremes = rankings.plain
    relative = (
        relative_influence(scores[:, :k].cpu(), rankings.squares[positions[:, :k].cpu()])
        for scores, positions in extremes.sides
    )
    return extreme_pairs(names, extremes, k, examples).with_columns(relative_score=_column(relative))


def relative_rows(
    names: Sequence[str], rankings: "Rankings", k: int, examples: Mapping[int, tuple[str, str]]
) -> pl.DataFrame:
    """Return the two ends of each query's ranking by relative influence, each row with its score too."""
    extremes = rankings.relative
    scores = (
        relative[:, :k].cpu() * rankings.squares[positions[:, :k].cpu()].sqrt()
        for relative, positions in extremes.sides
    )
    rows = extreme_pairs(names, extremes, k, examples)
    return rows.with_columns(relative_score="score", score=_column(scores))


def all_pairs(
    names: Sequence[str],
    scores: "torch.Tensor",
    examples: Mapping[int, tuple[str, str]],
    relative: "torch.Tensor | None" = None,
) -> pl.DataFrame:
    """Return every score [Q, N] as a row of a score table, each query's best first; with relative ones [Q, N] if given."""
    ids, shards = zip(*(examples[position] for position in range(scores.shape[1])), strict=True)
    schema = _SCHEMA if relative is None else RELATIVE_SCHEMA
    more = [{}] * len(names) if relative is None else [{"relative_score": row.numpy()} for row in relative]
    return pl.concat(
        pl.DataFrame({"example_id": ids, "shard": shards, "score": row.numpy(), **columns})
        .sort("score", descending=True, maintain_order=True)
        .with_row_index("rank", offset=1)
        .with_columns(query_id=pl.lit(name), side=pl.lit(EVERY))
        .select(pl.col(column).cast(kind) for column, kind in schema.items())
        for name, row, columns in zip(names, scores, more, strict=True)
    )


def _column(sides: "Iterable[torch.Tensor]") -> pl.Series:
    """Return the values of both sides in the order of `extreme_pairs`."""
    return pl.Series([value for side in sides for value in side.flatten().tolist()], dtype=pl.Float32)
