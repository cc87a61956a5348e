"""What the preconditioners of every curvature have in common: one partition per layer, fitted from the stored factors."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import AttributionAsset, Input, Materializations, attribution_asset
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.attribution.stored_factors import stored_factors
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.attribution import stale_preconditioners
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.pages.report.content import LayerCurvature

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FittedLayer:
    """What is reported of one layer's preconditioner, which is stored by then."""

    version: str
    """The partition's data version."""
    shown: LayerCurvature
    """What its spectrum is drawn from."""
    figures: Mapping[str, float]
    """What is tracked."""
    metadata: Mapping[str, Any]
    """What Dagster shows beside the figures."""


FitLayer = Callable[[str, "torch.device"], FittedLayer]
"""Fits a layer on a device, stores its preconditioner, and says what came out."""


def preconditioner_asset(
    name: str,
    description: str,
    *,
    curvature: str,
    table: TableSchema,
    fitting: Callable[..., FitLayer],
    inputs: Sequence[AttributionAsset | Input] = (),
    options: type[dg.Config] | None = None,
) -> AttributionAsset:
    """Make the asset that fits one curvature, layer by layer; under another curvature it has nothing to do.

    Args:
        name: of the asset.
        description: of the asset.
        curvature: the value of `recipe.curvature`.
        table: where its preconditioners are.
        fitting: prepares the fit of a checkpoint's layers, given the run, the checkpoint's record, its stored factors and
            the options, if there are any.
        inputs: what it is fitted from beside the gradient factors.
        options: what can be chosen for a run.
    """

    def is_used(settings: Settings) -> bool:
        return settings.recipe.curvature == curvature

    def compute(run: PartitionRun, *config: dg.Config) -> Materializations:
        if not is_used(run.settings):
            run.log.info(f'nothing to do: recipe.curvature is "{run.settings.recipe.curvature}"')
            return
        from lorif_assets.pages.report.plots import spectrum_png

        for checkpoint, layers in run.by_checkpoint().items():
            record = run.record(checkpoint)
            record.refuse_other_layers(layers)
            stored = stored_factors(run.lake, record, run.settings.recipe)
            fit_layer, shown = fitting(run, record, stored, *config), []
            with (
                run.lease() as group,
                run.tracked(checkpoint, layers.values(), run.settings.recipe.model_dump()) as tracked,
                run.progress(f"{checkpoint} {name}", len(layers), "layers") as progress,
            ):
                for index, (layer, key) in enumerate(layers.items()):
                    fitted = fit_layer(layer, group.first)
                    shown.append(fitted.shown)
                    progress.advance(1)
                    if tracked:
                        tracked.metrics(fitted.figures, index)
                    spectrum = dg.MetadataValue.md(_inline_picture(spectrum_png([fitted.shown])))
                    metadata = {**fitted.metadata, **fitted.figures, "spectrum": spectrum}
                    yield from run.commit(key, fitted.version, metadata)
                if tracked:
                    tracked.image(spectrum_png(shown), "spectra.png")

    return attribution_asset(
        name=name,
        description=description,
        group="attribution",
        table=table,
        partitions=partitions.checkpoint_by_layer,
        inputs=[Input(gradient_factors, partitions.whole_checkpoint()), *inputs],
        stale=lambda freshness: stale_preconditioners(freshness, table),
        is_used=is_used,
        options=options,
        on_device=True,
        kinds={"torch", "deltalake"},
    )(compute)


def _inline_picture(png: bytes) -> str:
    """Return a picture as Markdown that needs no other file."""
    return f"![spectrum](data:image/png;base64,{base64.b64encode(png).decode()})"
