"""Asset checks: whether what is stored can be trusted. They fail loudly, in Dagster's UI, and change nothing."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import dagster as dg
import polars as pl

from lorif_assets.assets.corpus import training_examples
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.influcoder_agreement import influcoder_agreement
from lorif_assets.assets.report import attribution_report
from lorif_assets.assets.svd_preconditioners import svd_preconditioners
from lorif_assets.bi_encoder.extra import require_influcoder
from lorif_assets.discovery import discover
from lorif_assets.settings import Settings
from lorif_assets.staleness import Staleness
from resources.lake import Lake
from resources.models import Checkpoints
from resources.schemas import (
    CHECKPOINTS,
    GRADIENT_FACTORS,
    INFLUENCE_TARGETS,
    REJECTED,
    SVD_PRECONDITIONERS,
    TRAINING_EXAMPLES,
)

_ORTHONORMAL = 1e-3
_TRAP = 0.5


@dg.asset_check(asset=training_examples, description="No example id stands in two rows, in one shard or in two.")
def example_ids_are_unique(lake: Lake) -> dg.AssetCheckResult:
    """Count the ids that occur more than once."""
    counts = lake.read(TRAINING_EXAMPLES, ["example_id"]).group_by("example_id").len()
    repeated = counts.filter(pl.col("len") > 1).sort("len", descending=True)
    return _result(
        f"{counts.height:,} ids are unique",
        [f"{name} stands in {count} rows" for name, count in repeated.iter_rows()],
        examples=counts.height,
    )


@dg.asset_check(
    asset=gradient_factors,
    description="Every shard has one row of factors for each example, apart from those set aside with a reason.",
)
def factor_rows_are_complete(lake: Lake) -> dg.AssetCheckResult:
    """Compare row counts of each checkpoint and shard."""
    examples = _counts(lake.read(TRAINING_EXAMPLES, ["shard"]), "shard")
    rejected = _counts(lake.read(REJECTED, ["part"], stage="gradient_factors"), "part")
    factors = lake.read(GRADIENT_FACTORS, ["checkpoint", "shard"]).group_by("checkpoint", "shard").len()
    wrong = [
        f"{checkpoint}|{shard}: {count} rows of factors and {rejected.get(f'{checkpoint}|{shard}', 0)} set aside for "
        f"{examples.get(shard, 0)} examples"
        for checkpoint, shard, count in factors.sort("checkpoint", "shard").iter_rows()
        if count + rejected.get(f"{checkpoint}|{shard}", 0) != examples.get(shard, 0)
    ]
    return _result("every shard is complete", wrong, partitions=factors.height)


@dg.asset_check(
    asset=gradient_factors,
    description="Every shard's factors come from the examples and weights that are stored now, and from one projection.",
)
def factors_match_their_inputs(lake: Lake) -> dg.AssetCheckResult:
    """Compare the hashes of each checkpoint and shard with those of the tables above."""
    shards = dict(lake.read(TRAINING_EXAMPLES, ["shard", "shard_hash"]).unique().iter_rows())
    weights = dict(lake.read(CHECKPOINTS, ["checkpoint", "weights_hash"]).iter_rows())
    columns = ["checkpoint", "shard", "shard_hash", "weights_hash", "projection"]
    rows = lake.read(GRADIENT_FACTORS, columns).unique().sort("checkpoint", "shard")
    wrong = [
        f"{row['checkpoint']}|{row['shard']}: computed from {what} {found}, stored is {wanted}"
        for row in rows.iter_rows(named=True)
        for what, found, wanted in (
            ("data", row["shard_hash"], shards.get(row["shard"])),
            ("weights", row["weights_hash"], weights.get(row["checkpoint"])),
        )
        if found != wanted
    ]
    mixed = rows.group_by("checkpoint").agg(pl.col("projection").n_unique()).filter(pl.col("projection") > 1)
    wrong += [f"{name}: {count} different projections" for name, count in mixed.iter_rows()]
    return _result("all hashes agree", wrong, partitions=rows.height)


@dg.asset_check(asset=gradient_factors, description="Losses are finite and positive, and every example has targets.")
def losses_are_finite(lake: Lake) -> dg.AssetCheckResult:
    """Look at the loss of every example."""
    rows = lake.read(GRADIENT_FACTORS, ["checkpoint", "shard", "example_id", "loss", "n_target_tokens"])
    odd = rows.filter(~pl.col("loss").is_finite() | (pl.col("loss") < 0) | (pl.col("n_target_tokens") < 1))
    wrong = [f"{row['checkpoint']}|{row['shard']} {row['example_id']}: {row['loss']}" for row in odd.to_dicts()]
    return _result("all losses are finite", wrong, examples=rows.height)


@dg.asset_check(
    asset=svd_preconditioners,
    description="Eigenvectors are orthonormal; eigenvalues sorted, not negative, and no more than the trace.",
)
def curvature_is_sound(lake: Lake) -> dg.AssetCheckResult:
    """Look at every layer's stored spectrum and vectors."""
    import torch

    wrong = []
    worst = 0.0
    rows = lake.read(SVD_PRECONDITIONERS).sort("checkpoint", "layer")
    for row in rows.iter_rows(named=True):
        name = f"{row['checkpoint']}|{row['layer']}"
        values = row["eigenvalues"]
        if any(left < right for left, right in pairwise(values)) or min(values, default=0) < 0:
            wrong.append(f"{name}: the eigenvalues are not sorted and non-negative")
        if sum(values[: row["r"]]) > row["trace"] * (1 + _ORTHONORMAL):
            wrong.append(f"{name}: the eigenvalues add up to more than the trace {row['trace']:.4g}")
        vectors = lake.read_tensors(row["state_uri"])["vectors"].double()
        deviation = float((vectors.mT @ vectors - torch.eye(vectors.shape[1])).abs().max()) if row["r"] else 0.0
        worst = max(worst, deviation)
        if deviation > _ORTHONORMAL:
            wrong.append(f"{name}: V^T V differs from the identity by {deviation:.2g}, allowed is {_ORTHONORMAL}")
    return _result("every layer's curvature is sound", wrong, layers=rows.height, largest_deviation=worst)


@dg.asset_check(
    asset=svd_preconditioners,
    description="In truncated form, damping is not far below the mean of the eigenvalues that were cut off.",
)
def damping_is_safe(settings: dg.ResourceParam[Settings], lake: Lake) -> dg.AssetCheckResult:
    """Compare each layer's damping with its tail, where the form ignores the tail."""
    columns = ["checkpoint", "layer", "d1", "d2", "r", "eigenvalues", "trace", "damping"]
    rows = lake.read(SVD_PRECONDITIONERS, columns).sort("checkpoint", "layer")
    wrong = []
    if settings.recipe.curvature_form == "truncated":
        for row in rows.iter_rows(named=True):
            cut_off = row["d1"] * row["d2"] - row["r"]
            tail = max(row["trace"] - sum(row["eigenvalues"][: row["r"]]), 0.0) / cut_off if cut_off else 0.0
            if row["damping"] < _TRAP * tail:
                wrong.append(f"{row['checkpoint']}|{row['layer']}: damping {row['damping']:.3g}, mean tail {tail:.3g}")
    return _result(
        "no layer's damping is far below its tail",
        wrong,
        remedy='use curvature_form = "tail_corrected", or raise recipe.damping to 1 and more with the trace rule',
        severity=dg.AssetCheckSeverity.WARN,
        layers=rows.height,
    )


@dg.asset_check(
    asset=attribution_report,
    description="The active checkpoints are attributed for every active query set, from what is there now.",
)
def attribution_is_fresh(
    settings: dg.ResourceParam[Settings], lake: Lake, model_checkpoints: Checkpoints
) -> dg.AssetCheckResult:
    """List what is missing or stale on the way to the reports of the active checkpoints."""
    staleness = Staleness(settings, lake, model_checkpoints, discover(settings, model_checkpoints, lake))
    unrecorded = [f"checkpoint {name}: {stale.reason}" for name, stale in staleness.checkpoints().items()]
    data = [f"shard {name}: {stale.reason}" for name, stale in staleness.training_examples().items()]
    reports = [f"report {name}: {stale.reason}" for name, stale in staleness.attribution_report().items()]
    return _result(
        f"{', '.join(staleness.active_checkpoints)} attributed",
        [*unrecorded, *data, *reports],
        remedy="switch on re_attribution_sensor, or run `lorif materialize`",
        severity=dg.AssetCheckSeverity.WARN,
        checkpoints=len(staleness.active_checkpoints),
    )


@dg.asset_check(
    asset=influcoder_agreement,
    description="No text that Influcoder is measured on is among those it is trained on, word for word or nearly.",
)
def held_out_texts_are_apart(settings: dg.ResourceParam[Settings], lake: Lake) -> dg.AssetCheckResult:
    """Compare the distilled with the held-out texts of every checkpoint, for the served split and each evaluation seed."""
    from lorif_assets.bi_encoder.leakage_audit import leaks

    names = lake.read(INFLUENCE_TARGETS, ["checkpoint"])["checkpoint"].unique().sort().to_list()
    if names:
        require_influcoder()
    wrong = [line for name in names for line in leaks(lake, name, settings.influcoder.evaluation_seeds)]
    return _result(
        "no held-out text is among the distilled ones",
        wrong,
        remedy="materialize `influence_targets` again: its sample leaves near-duplicates out",
        checkpoints=len(names),
    )


CHECKS = (
    example_ids_are_unique,
    factor_rows_are_complete,
    factors_match_their_inputs,
    losses_are_finite,
    curvature_is_sound,
    damping_is_safe,
    attribution_is_fresh,
    held_out_texts_are_apart,
)


def _counts(rows: pl.DataFrame, column: str) -> Mapping[str, int]:
    return dict(rows.group_by(column).len().iter_rows())


def _result(
    good: str,
    wrong: Iterable[str],
    remedy: str | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **figures: Any,
) -> dg.AssetCheckResult:
    found = list(wrong)
    metadata: dict[str, Any] = {**figures, "found_wrong": len(found)}
    if found:
        metadata["first"] = dg.MetadataValue.md("\n".join(f"* `{line}`" for line in found[:20]))
    if found and remedy:
        metadata["remedy"] = remedy
    return dg.AssetCheckResult(
        passed=not found,
        severity=severity,
        description=good if not found else f"{len(found)} found wrong, the first: {found[0]}",
        metadata=metadata,
    )
