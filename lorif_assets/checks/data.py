"""Checks of the training examples."""

import dagster as dg
import polars as pl

from lorif_assets.assets.training_examples import training_examples
from lorif_assets.checks.check_result import check_result
from lorif_assets.lake.attribution_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake


@dg.asset_check(
    asset=training_examples.definition, description="No example id occurs in two rows, of one shard or of two."
)
def example_ids_are_unique(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Count the ids that occur more than once."""
    counts = lake.read(TRAINING_EXAMPLES, ["example_id"]).group_by("example_id").len()
    repeated = counts.filter(pl.col("len") > 1).sort("len", descending=True)
    return check_result(
        f"{counts.height:,} ids are unique",
        [f"{name} occurs in {count} rows" for name, count in repeated.iter_rows()],
        examples=counts.height,
    )
