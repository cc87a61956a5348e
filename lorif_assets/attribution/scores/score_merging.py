"""Scoring only new data: the last full scan of a query set is stored, and shards added since are merged into it.

Only full scans are stored, never merged ones. However many shards are added one after another, the older examples'
scores are one step away from those of a new full scan, and that step is measured on a probe.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa
import torch

from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint, QueriedCheckpoint
from lorif_assets.attribution.queries.precondition_queries import PreconditionedQueries
from lorif_assets.attribution.scores.scan_parts import Scan
from lorif_assets.attribution.scores.score_queries import (
    PlainScorer,
    QueryScores,
    comparable_queries,
    extreme_count,
    full_scan,
    run_scan,
)
from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import TableError
from lorif_assets.lake.attribution_tables import SCORE_SCANS
from lorif_assets.lake.lake import FactorFile, Lake
from lorif_assets.mathematics.scores.relative_influence import Rankings, ScoredBlock
from lorif_assets.mathematics.scores.score_change import scale_and_change
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments
from lorif_assets.progress import Progress

# Examples whose scores show how far the preconditioner moved, and the most shards that they are taken from.
PROBE_EXAMPLES = 64
_PROBE_SHARDS = 8


@dataclass(frozen=True)
class ScannedShard:
    """A shard of a full scan: the hash of its examples and their number."""

    shard_hash: str
    rows: int


@dataclass(frozen=True)
class FullScan:
    """The result of a scan of all shards; `probe` has the scores of its probe set, and the squares of their sizes."""

    shards: Mapping[str, ScannedShard]
    rankings: Rankings
    probe: ScoredBlock


def score_merged(
    checkpoint: QueriedCheckpoint,
    queries: Sequence[TokenizedExample],
    last_scan: FullScan | None,
    *,
    top_k: int | Literal["all"],
    batch: BatchSettings,
    progress: Progress,
) -> tuple[QueryScores, FullScan | None]:
    """Score the examples of shards added since the last full scan and merge them in, or score all examples.

    Args:
        checkpoint: to which they are put.
        queries: tokenized.
        last_scan: the last full scan of the same queries, weights and recipe.
        top_k: proponents and opponents to return.
        batch: sizes of batches of queries and of blocks of factors.
        progress: advances with every block.

    Returns:
        The scores; and, if all examples were scored, the scan that later shards can be merged into.
    """
    prepared_queries: PreconditionedQueries = checkpoint.with_model(comparable_queries, queries, batch)
    factors = checkpoint.stored.factors
    scan: Scan = checkpoint.with_model(_chosen, last_scan, prepared_queries, len(queries), extreme_count(top_k))
    scorer = PlainScorer(factors, prepared_queries, batch.scan_rows)
    result = run_scan(checkpoint, queries, prepared_queries, scan, scorer, top_k=top_k, progress=progress)
    full = checkpoint.with_model(_full_scan_of, prepared_queries, result.rankings) if scan.is_full else None
    return result.scores, full


def _chosen(
    checkpoint: LoadedCheckpoint,
    last_scan: FullScan | None,
    prepared_queries: PreconditionedQueries,
    n_queries: int,
    n_extremes: int,
) -> Scan:
    stored, device = checkpoint.stored, checkpoint.device
    return chosen_scan(
        last_scan,
        prepared_queries.to(device),
        stored.factors,
        n_queries=n_queries,
        n_extremes=n_extremes,
        tolerance=stored.recipe.merge_tolerance,
        device=device,
    )


def _full_scan_of(
    checkpoint: LoadedCheckpoint, prepared_queries: PreconditionedQueries, rankings: Rankings
) -> FullScan:
    device = checkpoint.device
    return full_scan_of(prepared_queries.to(device), checkpoint.stored.factors, rankings, device)


def chosen_scan(
    last_scan: FullScan | None,
    queries: PreconditionedQueries,
    factors: StoredFactors,
    *,
    n_queries: int,
    n_extremes: int,
    tolerance: float,
    device: torch.device,
) -> Scan:
    """Decide between a scan of the shards added since the last full scan and another full scan.

    Args:
        last_scan: the last full scan, of the same queries, weights and recipe.
        queries: with the current preconditioner.
        factors: the factors.
        n_queries: how many there are.
        n_extremes: extremes of each query.
        tolerance: the largest relative change of a query's probe scores with which its earlier scores are kept.
        device: where to compute.
    """
    if last_scan is None:
        return full_scan(factors, n_queries, n_extremes, "there is none of these queries, weights and recipe to add to")
    files = {file.shard: file for file in factors.files}
    changed = [name for name, shard in last_scan.shards.items() if factors.shard_hashes.get(name) != shard.shard_hash]
    if changed:
        return full_scan(
            factors, n_queries, n_extremes, f"{len(changed)} shards changed or left, for instance {changed[0]}"
        )
    added = tuple(file for file in factors.files if file.shard not in last_scan.shards)
    n_added = sum(file.rows for file in added)
    if n_added > last_scan.rankings.moments.count:
        return full_scan(factors, n_queries, n_extremes, "more was added since the last one than it scanned")
    scanned_files = tuple(files[name] for name in sorted(last_scan.shards))
    probe = probe_scores(queries, factors, scanned_files, device)
    scale, change = scale_and_change(last_scan.probe.scores, probe.scores)
    square_scale, _ = scale_and_change(last_scan.probe.squares[None], probe.squares[None])
    worst, smallest = float(change.max()), float(scale.min())
    if worst > tolerance or smallest <= 0:
        return full_scan(
            factors,
            n_queries,
            n_extremes,
            f"the preconditioner changed a query's probe scores by {worst:.2%}, allowed are {tolerance:.2%}",
        )
    return Scan(
        added,
        _carried_over(last_scan, factors, scale, float(square_scale)),
        f"merged: {n_added:,} examples of {len(added)} shards added since the last full scan; the preconditioner changed no "
        f"query's probe scores by more than {worst:.2%}, allowed are {tolerance:.2%}",
    )


def probe_scores(
    queries: PreconditionedQueries,
    factors: StoredFactors,
    files: tuple[FactorFile, ...],
    device: torch.device,
) -> ScoredBlock:
    """Return the scores of the first examples of some of these files, evenly spaced among them."""
    chosen = files[:: max(1, -(-len(files) // _PROBE_SHARDS))]
    rows = -(-PROBE_EXAMPLES // len(chosen))
    layers = list(queries.by_layer)
    blocks = (next(factors.scan_blocks(layers, rows, device, [file])) for file in chosen)
    scored = [ScoredBlock.of(queries.by_layer, block, queries.norm_weights) for block in blocks]
    return ScoredBlock(
        torch.cat([block.scores.cpu() for block in scored], dim=1), torch.cat([block.squares.cpu() for block in scored])
    )


def full_scan_of(
    queries: PreconditionedQueries, factors: StoredFactors, rankings: Rankings, device: torch.device
) -> FullScan:
    """Return the result of a scan of all shards, with the scores of its probe."""
    shards = {file.shard: ScannedShard(factors.shard_hashes[file.shard], file.rows) for file in factors.files}
    return FullScan(shards, rankings, probe_scores(queries, factors, factors.files, device))


def _carried_over(last_scan: FullScan, factors: StoredFactors, scale: torch.Tensor, square_scale: float) -> Rankings:
    """Return the rankings, scaled, with their examples at the positions that they now have among all shards."""
    names = sorted(last_scan.shards)
    rows = torch.tensor([last_scan.shards[name].rows for name in names])
    ends = rows.cumsum(0)
    first_positions = factors.first_positions
    shift = torch.tensor([first_positions[name] for name in names]) - (ends - rows)

    def moved(positions: torch.Tensor) -> torch.Tensor:
        return positions + shift[torch.searchsorted(ends, positions, right=True)]

    def scaled(extremes: ScoreExtremes, factor: torch.Tensor) -> ScoreExtremes:
        return replace(
            extremes,
            highest=(extremes.highest * factor).float(),
            highest_positions=moved(extremes.highest_positions),
            lowest=(extremes.lowest * factor).float(),
            lowest_positions=moved(extremes.lowest_positions),
        )

    rankings, query_scale = last_scan.rankings, scale.unsqueeze(1)
    squares = torch.full((factors.n_examples,), torch.nan)
    squares[moved(torch.arange(len(rankings.squares)))] = rankings.squares * square_scale
    return Rankings(
        plain=scaled(rankings.plain, query_scale),
        relative=scaled(rankings.relative, query_scale / square_scale**0.5),
        moments=_scaled_moments(rankings.moments, scale),
        squares=squares,
    )


def _scaled_moments(moments: ScoreMoments, scale: torch.Tensor) -> ScoreMoments:
    """Return the moments of scores times a positive factor per query."""
    return ScoreMoments(
        moments.count,
        moments.total * scale,
        moments.squares * scale.square(),
        moments.magnitude * scale,
        moments.positive * scale,
    )


# --- In the lake -----------------------------------------------------------------------------------------------------


def scan_version(recipe: Recipe, factors: StoredFactors, query_set_hash: str) -> str:
    """Return the hash of everything but the shards that scores depend on."""
    return content_hash([recipe.score_hash, factors.weights_hash, factors.projection, query_set_hash])


def last_full_scan(lake: Lake, checkpoint: str, query_set: str, version: str, k: int) -> FullScan | None:
    """Return the stored full scan of a query set at a checkpoint, if one of this version has a readable file."""
    rows = lake.read(SCORE_SCANS, checkpoint=checkpoint, query_set=query_set).to_dicts()
    if not rows or rows[0]["scan_version"] != version:
        return None
    shards = {name: ScannedShard(**shard) for name, shard in json.loads(rows[0]["ledger"]).items()}
    try:
        t = lake.read_tensors(rows[0]["state_uri"])
    except TableError:
        return None
    if _SQUARES not in t:
        # An earlier version stored it, without what relative influence needs.
        return None
    plain, relative = (ScoreExtremes(k, *(t[f"{ranking}{name}"] for name in _EXTREMES)) for ranking in _RANKINGS)
    count = sum(shard.rows for shard in shards.values())
    moments = ScoreMoments(count, t["total"], t["squares"], t["magnitude"], t["positive"])
    return FullScan(
        shards, Rankings(plain, relative, moments, t[_SQUARES]), ScoredBlock(t["probe"], t["probe_squared_sizes"])
    )


def store_full_scan(lake: Lake, checkpoint: str, query_set: str, version: str, scan: FullScan) -> None:
    """Store a full scan in place of the previous one."""
    rankings = scan.rankings
    tensors = {
        **{
            f"{prefix}{name}": getattr(extremes, name).cpu()
            for prefix, extremes in zip(_RANKINGS, (rankings.plain, rankings.relative), strict=True)
            for name in _EXTREMES
        },
        **{name: getattr(rankings.moments, name).cpu() for name in ("total", "squares", "magnitude", "positive")},
        _SQUARES: rankings.squares,
        "probe": scan.probe.scores,
        "probe_squared_sizes": scan.probe.squares,
    }
    row = {
        "checkpoint": checkpoint,
        "query_set": query_set,
        "state_uri": lake.write_tensors(f"scan_states/{checkpoint}", tensors),
        "ledger": json.dumps({name: vars(shard) for name, shard in scan.shards.items()}, sort_keys=True),
        "scan_version": version,
    }
    # The row comes last: readers find the tensors through it.
    lake.replace(
        SCORE_SCANS,
        {"checkpoint": checkpoint, "query_set": query_set},
        pa.Table.from_pylist([row], schema=SCORE_SCANS.columns),
    )


_EXTREMES = ("highest", "highest_positions", "lowest", "lowest_positions")
# What the names of a ranking's extremes begin with: the plain one's, which came first, with nothing.
_RANKINGS = ("", "relative_")
_SQUARES = "squared_sizes"
