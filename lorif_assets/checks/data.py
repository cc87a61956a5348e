"""Checks of the training examples."""

import dagster as dg
import polars as pl

from lorif_assets.assets.training_examples import training_examples
from lorif_assets.checks.check_result import check_result
from lorif_assets.config.settings import Settings
from lorif_assets.data.shards import in_short
from lorif_assets.freshness.leftovers import Fate, leftover_shards
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from resources import inspected_project


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


@dg.asset_check(
    asset=training_examples.definition,
    description="No shard stands in others altogether, as a copied file does, compressed or under another name.",
)
def shards_are_no_copies(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Look for shards of several contents that each stand in another shard too."""
    contents = lake.read(TRAINING_EXAMPLES, ["shard", "content_hash"]).unique()
    first, last = (of("shard").over("content_hash") for of in (pl.min, pl.max))
    shards = (
        contents.with_columns(other=pl.when(pl.col("shard") == first).then(last).otherwise(first))
        .group_by("shard")
        .agg(n=pl.len(), n_elsewhere=(pl.col("other") != pl.col("shard")).sum(), others=pl.col("other").unique().sort())
    )
    copies = shards.filter(pl.col("n") > 1, pl.col("n") == pl.col("n_elsewhere")).sort("shard")
    return check_result(
        f"{shards.height:,} shards have rows of their own",
        [
            f"{shard}: all {n} contents of its rows stand in other shards too ({in_short(others)}), and are scored as often"
            for shard, n, _, others in copies.iter_rows()
        ],
        remedy="Where a file is a copy, leave it out of the source; where rows are repeated on purpose, all is well",
        severity=dg.AssetCheckSeverity.WARN,
        shards=shards.height,
    )


@dg.asset_check(
    asset=training_examples.definition,
    description="Every stored shard is named by a source, or it was decided that it stays; none of its rows is stored twice.",
)
def stored_shards_have_sources(
    settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake], model_checkpoints: dg.ResourceParam[Checkpoints]
) -> dg.AssetCheckResult:
    """Compare the stored shards with those that the sources have now, and the rows of the others with theirs."""
    found = leftover_shards(Freshness.of(inspected_project(settings, lake, model_checkpoints)))
    decided = (Fate.KEPT, Fate.KEPT_BY_SETTINGS)
    open_questions = [
        leftover
        for leftover in found
        if leftover.superseded or leftover.fate(settings.automation.on_removed) not in decided
    ]
    return check_result(
        f"every stored shard has a source, or stays as was decided ({len(found)} do)",
        [
            f"{leftover.shard}: no source names it any more, and {len(leftover.superseded)} of its {leftover.n_rows} rows "
            "stand in other shards too"
            for leftover in open_questions
        ],
        remedy="`lorif withdraw` lists them, takes them out, or records that they stay",
        severity=dg.AssetCheckSeverity.WARN,
        kept=len(found) - len(open_questions),
        rows_scored_twice=sum(len(leftover.superseded) for leftover in found),
    )
