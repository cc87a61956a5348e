"""Checks of the gradient factors: complete, of the data and weights that are stored, finite."""

from collections.abc import Mapping

import dagster as dg
import polars as pl

from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.attribution.checkpoints.learned_by_heart import NOTEWORTHY_SHARE, REMEDY, learned_by_heart
from lorif_assets.checks.check_result import check_result
from lorif_assets.data.stored_examples import stored_shard_hashes
from lorif_assets.lake.attribution_tables import CHECKPOINTS, GRADIENT_FACTORS
from lorif_assets.lake.data_tables import REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake


@dg.asset_check(
    asset=gradient_factors.definition,
    description="Every shard has one row of factors for each example, apart from those set aside with a reason.",
)
def factor_rows_are_complete(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
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
    return check_result("every shard is complete", wrong, partitions=factors.height)


@dg.asset_check(
    asset=gradient_factors.definition,
    description="Every shard's factors come from the stored examples and weights, and from one projection.",
)
def factors_match_their_inputs(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Compare the hashes of each checkpoint and shard with those of the upstream tables."""
    shards = stored_shard_hashes(lake)
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
    return check_result("all hashes agree", wrong, partitions=rows.height)


@dg.asset_check(
    asset=gradient_factors.definition, description="Losses are finite and positive, and every example has targets."
)
def losses_are_finite(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Look at the loss of every example."""
    rows = lake.read(GRADIENT_FACTORS, ["checkpoint", "shard", "example_id", "loss", "n_target_tokens"])
    odd = rows.filter(~pl.col("loss").is_finite() | (pl.col("loss") < 0) | (pl.col("n_target_tokens") < 1))
    wrong = [f"{row['checkpoint']}|{row['shard']} {row['example_id']}: {row['loss']}" for row in odd.to_dicts()]
    return check_result("all losses are finite", wrong, examples=rows.height)


@dg.asset_check(
    asset=gradient_factors.definition,
    description=f"At each checkpoint, fewer than {NOTEWORTHY_SHARE:.0%} of the examples are learned by heart: their loss per "
    "token, and with it their gradient, has not vanished.",
)
def examples_are_not_learned_by_heart(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Compare each example's loss with what it was at the earliest checkpoint."""
    found = learned_by_heart(lake)
    return check_result(
        "no checkpoint has learned many examples by heart",
        [one.words for one in found if one.is_noteworthy],
        remedy=REMEDY,
        severity=dg.AssetCheckSeverity.WARN,
        largest_share=max((one.share for one in found), default=0.0),
    )


def _counts(rows: pl.DataFrame, column: str) -> Mapping[str, int]:
    return dict(rows.group_by(column).len().iter_rows())
