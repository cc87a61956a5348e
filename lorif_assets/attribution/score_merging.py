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

from lorif_assets.attribution.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.score_queries import (
    QueryScores,
    Scan,
    block_scorer,
    comparable_queries,
    extreme_count,
    full_scan,
    run_scan,
)
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.config.recipe import Recipe, content_hash
from lorif_assets.config.settings import BatchSettings
from lorif_assets.data.tokenization import TokenizedExample
from lorif_assets.errors import TableError
from lorif_assets.lake.attribution_tables import SCORE_SCANS
from lorif_assets.lake.lake import FactorFile, Lake
from lorif_assets.mathematics.scores.score_change import scale_and_change
from lorif_assets.mathematics.scores.scoring import Queries, ScoreExtremes, ScoreMoments, block_scores
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
    """The result of a scan of all shards; `probe` [Q, p] has the scores of its probe set."""

    shards: Mapping[str, ScannedShard]
    extremes: ScoreExtremes
    moments: ScoreMoments
    probe: torch.Tensor


def score_merged(
    checkpoint: AttributedCheckpoint,
    queries: Sequence[TokenizedExample],
    last_scan: FullScan | None,
    *,
    top_k: int | Literal["all"],
    batch: BatchSettings,
    progress: Progress,
) -> tuple[QueryScores, FullScan | None]:
    """Score the examples of shards added since the last full scan and merge them in, or score all examples.

    Args:
        checkpoint: with its model loaded.
        queries: tokenized.
        last_scan: the last full scan of the same queries, weights and recipe.
        top_k: proponents and opponents to return.
        batch: sizes of batches of queries and of blocks of factors.
        progress: advances with every block.

    Returns:
        The scores; and, if all examples were scored, the scan that later shards can be merged into.
    """
    prepared_queries = comparable_queries(checkpoint, queries, batch)
    factors, device = checkpoint.stored.factors, checkpoint.model.device
    scan = chosen_scan(
        last_scan,
        prepared_queries.by_layer,
        factors,
        n_queries=len(queries),
        n_extremes=extreme_count(top_k),
        tolerance=checkpoint.stored.recipe.merge_tolerance,
        device=device,
    )
    blocks = block_scorer(checkpoint, prepared_queries, batch)
    result = run_scan(checkpoint, queries, prepared_queries, scan, blocks, top_k=top_k, progress=progress)
    full = (
        full_scan_of(prepared_queries.by_layer, factors, result.extremes, result.moments, device)
        if scan.is_full
        else None
    )
    return result.scores, full


def chosen_scan(
    last_scan: FullScan | None,
    queries: Mapping[str, Queries],
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
        queries: per layer vec(H^-1 G_q) [Q, D], with the current preconditioner.
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
    if n_added > last_scan.moments.count:
        return full_scan(factors, n_queries, n_extremes, "more was added since the last one than it scanned")
    scanned_files = tuple(files[name] for name in sorted(last_scan.shards))
    scale, change = scale_and_change(last_scan.probe, probe_scores(queries, factors, scanned_files, device))
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
        _moved(last_scan, factors, scale),
        _scaled_moments(last_scan.moments, scale),
        f"merged: {n_added:,} examples of {len(added)} shards added since the last full scan; the preconditioner changed no "
        f"query's probe scores by more than {worst:.2%}, allowed are {tolerance:.2%}",
    )


def probe_scores(
    queries: Mapping[str, Queries],
    factors: StoredFactors,
    files: tuple[FactorFile, ...],
    device: torch.device,
) -> torch.Tensor:
    """Return the scores [Q, p] of the first examples of some of these files, evenly spaced among them."""
    chosen = files[:: max(1, -(-len(files) // _PROBE_SHARDS))]
    rows = -(-PROBE_EXAMPLES // len(chosen))
    blocks = (next(factors.scan_blocks(list(queries), rows, device, [file])) for file in chosen)
    return torch.cat([block_scores(queries, block).cpu() for block in blocks], dim=1)


def full_scan_of(
    queries: Mapping[str, Queries],
    factors: StoredFactors,
    extremes: ScoreExtremes,
    moments: ScoreMoments,
    device: torch.device,
) -> FullScan:
    """Return the result of a scan of all shards, with the scores of its probe."""
    shards = {file.shard: ScannedShard(factors.shard_hashes[file.shard], file.rows) for file in factors.files}
    return FullScan(shards, extremes, moments, probe_scores(queries, factors, factors.files, device))


def _moved(last_scan: FullScan, factors: StoredFactors, scale: torch.Tensor) -> ScoreExtremes:
    """Return the extremes, scaled, at the positions that their examples now have among all shards."""
    names = sorted(last_scan.shards)
    rows = torch.tensor([last_scan.shards[name].rows for name in names])
    ends = rows.cumsum(0)
    first_positions = factors.first_positions
    shift = torch.tensor([first_positions[name] for name in names]) - (ends - rows)

    def moved(positions: torch.Tensor) -> torch.Tensor:
        return positions + shift[torch.searchsorted(ends, positions, right=True)]

    extremes, query_scale = last_scan.extremes, scale.unsqueeze(1)
    return replace(
        extremes,
        highest=(extremes.highest * query_scale).float(),
        highest_positions=moved(extremes.highest_positions),
        lowest=(extremes.lowest * query_scale).float(),
        lowest_positions=moved(extremes.lowest_positions),
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
    extremes = ScoreExtremes(k, t["highest"], t["highest_positions"], t["lowest"], t["lowest_positions"])
    count = sum(shard.rows for shard in shards.values())
    moments = ScoreMoments(count, t["total"], t["squares"], t["magnitude"], t["positive"])
    return FullScan(shards, extremes, moments, t["probe"])


def store_full_scan(lake: Lake, checkpoint: str, query_set: str, version: str, scan: FullScan) -> None:
    """Store a full scan in place of the previous one."""
    tensors = {
        **{name: getattr(scan.extremes, name).cpu() for name in _EXTREMES},
        **{name: getattr(scan.moments, name).cpu() for name in ("total", "squares", "magnitude", "positive")},
        "probe": scan.probe,
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
