"""K-FAC bases: what gradients are whitened in before they are factorised, where the curvature asks for that."""

from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.example_metadata import rejected_metadata
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.checkpoints.opened import CheckpointOpening
from lorif_assets.attribution.fitting.fit_bases import KfacSample
from lorif_assets.attribution.fitting.fit_stored_bases import FittedBases, fit_to_sample, read_sample
from lorif_assets.attribution.fitting.measured_width import WidthTrial
from lorif_assets.data.rows.rejected import rejected_table
from lorif_assets.data.rows.rejected_share import RejectedShare
from lorif_assets.freshness.attribution import stale_bases
from lorif_assets.lake.attribution_tables import KFAC_BASES
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES

_SHOWN = (
    "rank",
    "bytes_per_example",
    "kept_energy",
    "expected_agreement",
    "half_agreement",
    "n_examples",
    "n_tokens",
    "d1",
    "d2",
    "labels",
)


class BasesConfig(dg.Config):
    """Options of one run of `kfac_bases`."""

    recompute: bool = False
    """Fit the bases again, to the current training examples. Every factor of the checkpoint is then out of date."""


@attribution_asset(
    group="attribution",
    table=KFAC_BASES,
    partitions=partitions.checkpoint_by_layer,
    inputs=[
        Input(checkpoints, partitions.same(partitions.CHECKPOINT)),
        # New examples leave the bases frozen; as a dependency, they would make the bases look stale.
        Input(training_examples, partitions.every(), is_dependency=False),
    ],
    find_stale=stale_bases,
    is_used=lambda settings: settings.recipe.whitens,
    options=BasesConfig,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def kfac_bases(run: PartitionRun, config: BasesConfig) -> Materializations:
    """Eigenbases of a layer's inputs and output gradients over a sample of the training examples, and the layer's rank.

    One pass over the sample fits the bases of all layers of a checkpoint, and one commit stores them; they stay as they
    are when data change. Under a curvature without whitening there is nothing to do.
    """
    if not run.settings.recipe.whitens:
        run.log.info(f'nothing to do: recipe.curvature is "{run.settings.recipe.curvature}", which whitens no gradient')
        return
    for name, layers in run.by_checkpoint().items():
        stored = run.stored(name)
        record = stored.record
        record.refuse_other_layers(layers)
        how: dict[str, Any] = {"how": "left as they are"}
        bases = record.frozen_bases
        if config.recompute or bases is None or bases.has_other_state(run.checkpoints.get(name).path):
            sample, fitted = _fit(run, stored, layers.values())
            how = {
                "how": f"fitted to {fitted.n_examples} examples",
                **({"widths": _widths(fitted.widths.trials)} if fitted.widths.trials else {}),
                **rejected_metadata(_rejected(sample, fitted), sample.tokenized.notices),
            }
            # All layers in one commit: bases of two fits are never mixed.
            rows = pa.Table.from_pylist([dict(row) for row in fitted.rows], schema=KFAC_BASES.columns)
            run.lake.replace(KFAC_BASES, {"checkpoint": name}, rows)
        stored_rows = {row["layer"]: row for row in run.lake.read(KFAC_BASES, checkpoint=name).to_dicts()}
        *_, last = layers
        for layer, key in layers.items():
            row = stored_rows[layer]
            metadata = {**how, **{name: value for name in _SHOWN if (value := row[name]) is not None}}
            if layer == last:
                # With each layer the table of all would make the event log grow with the square of the layers.
                metadata["ranks"] = _ranks(stored_rows)
            yield from run.commit(key, row["fingerprint"], metadata)


def _fit(run: PartitionRun, stored: StoredCheckpoint, partitions: Iterable[str]) -> tuple[KfacSample, FittedBases]:
    """Return the sample and a checkpoint's bases."""
    recipe, name = run.settings.recipe, stored.record.name
    opening = CheckpointOpening(stored, run.checkpoints, run.settings.batch)
    with run.tracked(name, partitions, recipe.model_dump()) as tracked, run.workers(opening) as workers:
        sample = read_sample(workers)
        rejected, share = sample.tokenized.rejected, _rejected_share(run, name)
        share.replace(name, rejected)
        sample.refuse_too_few(name)
        share.refuse(name, rejected)
        fitted = fit_to_sample(workers, sample)
        if fitted.not_finite:
            share.replace(name, _rejected(sample, fitted))
            share.refuse(name, _rejected(sample, fitted))
        if tracked:
            tracked.metrics({"half_agreement": fitted.half_agreement})
    return sample, fitted


def _rejected(sample: KfacSample, fitted: FittedBases) -> pa.Table:
    """Return what is set aside of a sample: as the tokenizer reads it, and as the model computes with it."""
    return pa.concat_tables([sample.tokenized.rejected, rejected_table(fitted.not_finite)])


def _rejected_share(run: PartitionRun, checkpoint: str) -> RejectedShare:
    """Return what may be set aside of a sample: a share of all training examples, as gradients are taken of all."""
    return RejectedShare(
        run.lake,
        "kfac_bases",
        f"the training examples at {checkpoint!r}",
        {checkpoint: run.lake.read(TRAINING_EXAMPLES, ["shard"]).height},
        run.settings.data.max_rejected_share,
    )


def _widths(trials: Sequence[WidthTrial]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "largest width": trial.max_width,
                    "bytes per example": trial.bytes_per_example,
                    "agreement with exact EK-FAC": round(trial.agreement, 3),
                }
            )
            for trial in trials
        ]
    )


def _ranks(rows: dict[str, dict[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"layer": layer, "rank": row["rank"], "bytes per example": row["bytes_per_example"]})
            for layer, row in rows.items()
        ]
    )
