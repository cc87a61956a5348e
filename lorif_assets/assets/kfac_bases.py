"""K-FAC bases: what gradients are whitened in before they are factorised, where the curvature asks for that."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.example_metadata import rejected_metadata
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.attribution.checkpoint import StoredCheckpoint
from lorif_assets.attribution.fit_bases import KfacFit, KfacSample, fit_bases, fit_tokens, kfac_sample
from lorif_assets.attribution.measured_width import (
    WidthTrial,
    at_measured_width,
    expected_agreement,
    measured_tokens,
)
from lorif_assets.attribution.model import CheckpointRecord
from lorif_assets.attribution.stored_bases import bases_version
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.rejected_share import RejectedShare
from lorif_assets.freshness.attribution import stale_bases
from lorif_assets.lake.attribution_tables import KFAC_BASES, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake

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
        if config.recompute or record.frozen_bases is None:
            sample, fit, widths = _fit(run, stored, layers.values())
            how = {
                "how": f"fitted to {fit.n_examples} examples",
                **({"widths": _widths(widths.trials)} if widths.trials else {}),
                **rejected_metadata(sample.tokenized.rejected, sample.tokenized.notices),
            }
            _store(run.lake, record, run.settings.recipe, fit, widths)
        rows = {row["layer"]: row for row in run.lake.read(KFAC_BASES, checkpoint=name).to_dicts()}
        for layer, key in layers.items():
            metadata = {**how, **{name: value for name in _SHOWN if (value := rows[layer][name]) is not None}}
            yield from run.commit(key, rows[layer]["fingerprint"], {**metadata, "ranks": _ranks(rows)})


@dataclass(frozen=True)
class _Widths:
    """The projections that bases were fitted at: their fingerprint, the layers' shapes, and how the width was found."""

    projection: str
    shapes: Mapping[str, tuple[int, int]]
    max_width: int | None
    trials: Sequence[WidthTrial]
    expected_agreement: float | None


def _fit(run: PartitionRun, stored: StoredCheckpoint, partitions: Iterable[str]) -> tuple[KfacSample, KfacFit, _Widths]:
    """Return the sample, a checkpoint's bases, and the widths that they are of."""
    recipe, name = run.settings.recipe, stored.record.name
    with run.lease() as group, run.tracked(name, partitions, recipe.model_dump()) as tracked:
        checkpoint = stored.load(run.checkpoints, group)
        sample = kfac_sample(checkpoint)
        rejected, share = sample.tokenized.rejected, _rejected_share(run, name)
        share.replace(name, rejected)
        sample.refuse_too_few(name)
        share.refuse(name, rejected)
        model, examples, batch = checkpoint.model, sample.tokenized.examples, run.settings.batch
        with run.progress(f"{name} widths", measured_tokens(model, examples), "tok") as progress:
            model, trials = at_measured_width(model, examples, batch, progress)
        with run.progress(f"{name} K-FAC bases", fit_tokens(examples), "tok") as progress:
            fit = fit_bases(model, sample, batch, progress)
        if tracked:
            tracked.metrics({"half_agreement": min(layer.half_agreement for layer in fit.layers.values())})
        agreement = expected_agreement(model, trials)
        widths = _Widths(model.projection, model.record.layer_shapes, model.max_width, trials, agreement)
        # Before another run gets the devices: the memory is not free while a name refers to the model.
        del checkpoint, model
    return sample, fit, widths


def _rejected_share(run: PartitionRun, checkpoint: str) -> RejectedShare:
    """Return what may be set aside of a sample: a share of all training examples, as gradients are taken of all."""
    return RejectedShare(
        run.lake,
        "kfac_bases",
        f"the training examples at {checkpoint!r}",
        {checkpoint: run.lake.read(TRAINING_EXAMPLES, ["shard"]).height},
        run.settings.data.max_rejected_share,
    )


def _store(lake: Lake, record: CheckpointRecord, recipe: Recipe, fit: KfacFit, widths: _Widths) -> None:
    from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

    codec = FactorCodec(recipe.factor_dtype)
    rows = [
        {
            "checkpoint": record.name,
            "layer": name,
            "d1": d1,
            "d2": d2,
            "rank": fit.layers[name].rank,
            "bytes_per_example": factor_bytes(codec, d1, d2, fit.layers[name].rank),
            "kept_energy": fit.layers[name].kept_energy,
            "max_width": widths.max_width,
            "expected_agreement": widths.expected_agreement,
            "n_examples": fit.n_examples,
            "n_tokens": fit.layers[name].n_tokens,
            "labels": recipe.kfac_labels,
            "half_agreement": fit.layers[name].half_agreement,
            "uri": lake.write_tensors(f"kfac_bases_tensors/{record.name}", fit.layers[name].bases.tensors()),
            "fingerprint": fit.fingerprint,
            "sample_hash": fit.sample_hash,
            "version": bases_version(recipe, record.weights_hash, record.tokenizer_hash),
            "recipe_hash": recipe.factor_hash,
            "weights_hash": record.weights_hash,
            "projection": widths.projection,
        }
        for name, (d1, d2) in widths.shapes.items()
    ]
    # All layers in one commit: bases of two fits are never mixed.
    lake.replace(KFAC_BASES, {"checkpoint": record.name}, pa.Table.from_pylist(rows, schema=KFAC_BASES.columns))


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
