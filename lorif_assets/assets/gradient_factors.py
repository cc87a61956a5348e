"""Gradient factors: one forward and backward pass per example, kept as rank-c factors of its projected gradients."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, Wait, attribution_asset
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.example_metadata import rejected_metadata
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.assets.partition_run import Failures, PartitionRun
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.attribution.checkpoints.opened import CheckpointOpening
from lorif_assets.attribution.factors.build_factors import BuiltShard, FactorBuilding, commit_factors, factor_part
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.factors import stored_factor_versions
from lorif_assets.attribution.stored.versions import factor_versions
from lorif_assets.data.rows.rejected_share import RejectedShare
from lorif_assets.data.stored_examples import stored_shard_hashes
from lorif_assets.errors import LorifError, MismatchError
from lorif_assets.freshness.attribution import stale_factors
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.tracked_facts import training_datasets
from lorif_assets.tracking.partition_figures import PartitionFigures, combined_figures
from lorif_assets.tracking.tracked_run import TrackedRun

_SUMS = {"dagster/row_count", "truncated_examples", "tokens", "seconds", "bytes"}
"""Figures of shards that add up."""
_WEIGHTS = {"tokens_per_second": "seconds", "bytes_per_example": "dagster/row_count", "mean_loss_per_token": "tokens"}


class FactorConfig(dg.Config):
    """Options of one run of `gradient_factors`."""

    recompute: bool = False
    """Compute shards again whose stored factors already come from the same data, weights and recipe."""


@attribution_asset(
    group="attribution",
    table=GRADIENT_FACTORS,
    partitions=partitions.checkpoint_by_shard,
    inputs=[
        Input(training_examples, partitions.same(partitions.SHARD)),
        Input(checkpoints, partitions.same(partitions.CHECKPOINT)),
        # Frozen bases are fit for the shards that are stored while others are being read.
        Input(kfac_bases, partitions.whole_checkpoint(), Wait.FOR_IT_ALONE),
    ],
    find_stale=stale_factors,
    options=FactorConfig,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def gradient_factors(run: PartitionRun, config: FactorConfig) -> Materializations:
    """Rank-c factors of every example's gradient in every tracked layer; with EK-FAC, of the whitened gradient.

    A run of many shards loads each checkpoint once per worker, commits each shard as it is computed, and skips those that
    are up to date: a killed run goes on where it stopped.
    """
    recipe = run.settings.recipe
    for name, shards in run.by_checkpoint().items():
        stored = run.stored(name)
        record = stored.record
        if recipe.whitens and not record.frozen_bases:
            raise MismatchError(
                f"the checkpoint {name!r} has no K-FAC bases of this recipe and these weights; materialize `kfac_bases` first"
            )
        known = {} if config.recompute else stored_factor_versions(run.lake, name)
        wanted = factor_versions(recipe, record, _shard_hashes(run.lake, shards))
        to_do = [shard for shard in shards if known.get(shard) != wanted[shard]]
        for shard in shards.keys() - set(to_do):
            run.log.info(f"{shards[shard]}: up to date, left as it is")
            yield from run.commit(shards[shard], wanted[shard], {"left_as_is": True})
        if not to_do:
            continue
        # One bad shard must not keep the others from being computed.
        failures = Failures(run.log, "shards", len(to_do), "the next shard")
        share = _rejected_share(run, name)
        with (
            run.tracked(name, [shards[shard] for shard in to_do], recipe.model_dump()) as tracked,
            run.workers(CheckpointOpening(stored, run.checkpoints, run.settings.batch)) as workers,
        ):
            figures: dict[str, dict[str, float]] = {}
            built = workers.map_shards(FactorBuilding(share), to_do, partial(commit_factors, stored, share))
            for shard, outcome in built:
                try:
                    committed = outcome.result()
                except (LorifError, RuntimeError) as error:
                    failures.add(shards[shard], error)
                    continue
                metadata = _metadata(committed)
                figures[shard] = {key: value for key, value in metadata.items() if type(value) in {int, float}}
                if len(figures) == len(to_do):
                    # With each shard they would be most of the event log.
                    metadata["layers"] = _layers(record)
                yield from run.commit(shards[shard], committed.version, metadata)
            if tracked and figures:
                _track(run, tracked, figures)
            failures.raise_if_any()


def _track(run: PartitionRun, tracked: TrackedRun, figures: PartitionFigures) -> None:
    tracked.partitions(figures, _SUMS, _WEIGHTS)
    together = combined_figures(figures, _SUMS, _WEIGHTS)
    tracked.checkpoint_metrics({name: together[name] for name in ("tokens_per_second", "bytes_per_example")})
    tracked.datasets(training_datasets(run.lake, run.settings))


def _metadata(built: BuiltShard) -> dict[str, Any]:
    return {
        "dagster/row_count": built.rows.num_rows,
        **rejected_metadata(built.rejected, built.notices),
        **built.figures,
    }


def _layers(record: CheckpointRecord) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord({"layer": name, "d1": d1, "d2": d2}) for name, (d1, d2) in record.layer_shapes.items()]
    )


def _rejected_share(run: PartitionRun, checkpoint: str) -> RejectedShare:
    shards = run.lake.read(TRAINING_EXAMPLES, ["shard"])["shard"].value_counts()
    return RejectedShare(
        run.lake,
        "gradient_factors",
        f"the training examples at {checkpoint!r}",
        {factor_part(checkpoint, shard): rows for shard, rows in shards.iter_rows()},
        run.settings.data.max_rejected_share,
    )


def _shard_hashes(lake: Lake, shards: Iterable[str]) -> dict[str, str]:
    stored = stored_shard_hashes(lake)
    for shard in shards:
        if shard not in stored:
            raise MismatchError(f"the shard {shard!r} is not in `training_examples`; materialize it there first")
    return {shard: stored[shard] for shard in shards}
