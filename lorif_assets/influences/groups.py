"""Influence summed by a metadata column: which source, topic or author taught it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lorif_assets.attribution.scores.stored_rankings import Ranking, stored_score_version
from lorif_assets.data.passages import passage_metadata, passages
from lorif_assets.errors import NotStoredError, SettingsError
from lorif_assets.influences.listing import MOST_READ
from lorif_assets.influences.metadata_values import values_of
from lorif_assets.influences.ranked import Ranked
from lorif_assets.lake.attribution_tables import GROUP_SCORES
from lorif_assets.lake.lake import Lake

NO_VALUE = "(none)"
_Z_95 = 1.96


@dataclass(frozen=True)
class Group:
    """The examples with one value in a metadata column.

    `total` is the sum of their values; `low` and `high` are the ends of its 95 % interval, total ± 1.96 √n s with s the
    standard deviation within the group: what as many other examples of the kind would give. None for a single example, and
    where the two ends of a ranking alone are listed: they were chosen by their values, and say nothing of others.
    `share` is the sum of their magnitudes as a share (0 to 1) of that of all listed examples, `example_share` their share of
    the examples.
    """

    name: str
    n_examples: int
    total: float
    low: float | None
    high: float | None
    mean: float
    share: float
    example_share: float


@dataclass(frozen=True)
class Grouping:
    """Groups by one column, by the magnitude of their sums; of all examples where `is_complete`, else of the listed ones.

    With a `noise_share`, sums and shares are of posterior means: what the scores are expected to be without their noise.
    """

    column: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    n_grouped: int
    n_examples: int
    is_complete: bool
    noise_share: float | None


def stored_noise_share(lake: Lake, checkpoint: str, query_set: str, ranking: Ranking) -> float | None:
    """Return the share of noise that the stored sums of these scores are shrunk by; None where they are not, or there are none.

    It is of plain scores alone.
    """
    if ranking != "plain":
        return None
    rows = lake.read(GROUP_SCORES, ["scores_from", "noise_share"], checkpoint=checkpoint, query_set=query_set)
    current = rows.filter(pl.col("scores_from") == stored_score_version(lake, checkpoint, query_set))
    found = current["noise_share"].drop_nulls()
    return None if found.is_empty() else float(found[0])


def grouped(lake: Lake, ranked: Ranked, column: str | None, noise_share: float | None = None) -> Grouping:
    """Return a query's influence by the values of a metadata column; by default the first one that examples have.

    An example with several values, a list, counts for each of them.

    Args:
        lake: with the examples' metadata.
        ranked: the query's scores.
        column: of the metadata.
        noise_share: of the scores' mean square; None: sums and shares are of the scores as they are.

    Raises:
        NotStoredError: no listed example has such a column, or any metadata.
        SettingsError: more than 20,000 examples are listed.
    """
    rows = ranked.rows.unique(["shard", "example_id"], maintain_order=True)
    if rows.height > MOST_READ:
        raise SettingsError(f"groups are made of at most {MOST_READ:,} examples, and {rows.height:,} are listed")
    found = passages(lake, rows.select("shard", "example_id").iter_rows())
    of_pairs = rows["value"] if noise_share is None else _posterior_means(rows["value"], noise_share, ranked)
    values = dict(zip(rows.select("shard", "example_id").iter_rows(), of_pairs.to_list(), strict=True))
    metadata = {pair: passage_metadata(row) for pair, row in found.items()}
    columns = tuple(dict.fromkeys(name for one in metadata.values() for name in one))
    if not columns:
        raise NotStoredError(
            "the training examples have no metadata to group by; name columns in `columns.metadata` of the source"
        )
    chosen = columns[0] if column is None else column
    if chosen not in columns:
        raise NotStoredError(f"no training example has the metadata column {chosen!r}; there are {', '.join(columns)}")
    groups = _groups(values, metadata, chosen, is_complete=ranked.is_complete)
    return Grouping(chosen, columns, groups, len(metadata), ranked.n_examples, ranked.is_complete, noise_share)


def _posterior_means(values: pl.Series, noise_share: float, ranked: Ranked) -> pl.Series:
    from lorif_assets.mathematics.scores.shrinkage import shrunk

    # Of the two ends of a ranking alone, the size of all scores is their spread: their mean is next to nothing beside it.
    of_all = None if ranked.is_complete or ranked.spread is None else np.array([[ranked.spread]])
    return pl.Series(shrunk(values.to_numpy()[np.newaxis], noise_share, of_all)[0])


def _groups(
    values: Mapping[tuple[str, str], float],
    metadata: Mapping[tuple[str, str], Mapping[str, Any]],
    column: str,
    *,
    is_complete: bool,
) -> tuple[Group, ...]:
    members: dict[str, list[float]] = {}
    for pair, one in metadata.items():
        if math.isfinite(values[pair]):
            for name in values_of(one, column) or (NO_VALUE,):
                members.setdefault(name, []).append(values[pair])
    magnitude = sum(abs(values[pair]) for pair in metadata if math.isfinite(values[pair]))
    groups = [
        _group(name, found, magnitude, len(metadata), has_interval=is_complete and len(found) > 1)
        for name, found in members.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-abs(group.total), group.name)))


def _group(name: str, values: list[float], magnitude: float, n_examples: int, *, has_interval: bool) -> Group:
    n, total = len(values), math.fsum(values)
    mean = total / n
    half = _Z_95 * math.sqrt(n * sum((value - mean) ** 2 for value in values) / (n - 1)) if has_interval else None
    return Group(
        name=name,
        n_examples=n,
        total=total,
        low=None if half is None else total - half,
        high=None if half is None else total + half,
        mean=mean,
        share=sum(map(abs, values)) / magnitude if magnitude else 0.0,
        example_share=n / n_examples,
    )
