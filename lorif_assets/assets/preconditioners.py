"""The asset that keeps a curvature's preconditioners: one partition per layer, fitted from the stored factors."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import AttributionAsset, Input, Materializations, attribution_asset
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.attribution.curvatures import curvature_of
from lorif_assets.attribution.fit_curvature import CurvatureFit, fit_curvature
from lorif_assets.config.recipe import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.attribution import stale_preconditioners
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.pages.report.content import LayerCurvature


class CurvatureConfig(dg.Config):
    """Options of one run of an asset whose curvature has a basis that can be refined."""

    refine: bool = False
    """Fit each layer's basis to the current data, in one more pass over all factors; scores are then computed again."""


@dataclass(frozen=True)
class LayerReport:
    """What is reported of one layer's preconditioner: its spectrum to draw, figures to track, and further metadata."""

    spectrum: LayerCurvature
    figures: Mapping[str, float]
    metadata: Mapping[str, Any]


ReportLayer = Callable[[CurvatureFit, Mapping[str, Any]], LayerReport]
"""Reports a layer's fit, given the fit and its stored row."""


def preconditioner_asset(
    table: TableSchema,
    description: str,
    *,
    layer_reporter: Callable[[Lake, str], ReportLayer],
    inputs: Sequence[AttributionAsset | Input] = (),
    is_refinable: bool = False,
) -> AttributionAsset:
    """Make the asset that keeps a table of preconditioners; under a curvature that is stored elsewhere it does nothing.

    Args:
        table: where the preconditioners are; the asset has its name.
        description: of the asset.
        layer_reporter: given the lake and a checkpoint, returns the function that reports its layers.
        inputs: what the curvature is fitted from besides the gradient factors.
        is_refinable: whether a run can be asked to fit the basis again.
    """

    def is_used(settings: Settings) -> bool:
        return curvature_of(settings.recipe).table == table

    def compute(run: PartitionRun, *options: CurvatureConfig) -> Materializations:
        settings = run.settings
        if not is_used(settings):
            run.log.info(f'nothing to do: recipe.curvature is "{settings.recipe.curvature}"')
            return
        from lorif_assets.pages.report.plots import spectrum_png

        for checkpoint, layers in run.by_checkpoint().items():
            stored = run.stored(checkpoint)
            stored.record.refuse_other_layers(layers)
            factors, report, spectra = stored.factors, layer_reporter(run.lake, checkpoint), []
            with (
                run.lease() as group,
                run.tracked(checkpoint, layers.values(), settings.recipe.model_dump()) as tracked,
                run.progress(f"{checkpoint} {table.name}", len(layers), "layers") as progress,
            ):
                for index, (layer, key) in enumerate(layers.items()):
                    fit, row = fit_curvature(
                        stored,
                        layer,
                        rows=settings.batch.scan_rows,
                        device=group.first,
                        refine_below=settings.curvature.refine_below,
                        refine=any(one.refine for one in options),
                    )
                    reported = report(fit, row)
                    spectra.append(reported.spectrum)
                    progress.advance(1)
                    if tracked:
                        tracked.metrics(reported.figures, index)
                    metadata = {
                        "how": fit.history,
                        "examples": factors.n_examples,
                        "shards": len(factors.files),
                        "d1": reported.spectrum.d1,
                        "d2": reported.spectrum.d2,
                        **reported.metadata,
                        **reported.figures,
                        "spectrum": dg.MetadataValue.md(_inline_picture(spectrum_png([reported.spectrum]))),
                    }
                    yield from run.commit(key, _data_version(row), metadata)
                if tracked:
                    tracked.image(spectrum_png(spectra), "spectra.png")

    return attribution_asset(
        name=table.name,
        description=description,
        group="attribution",
        table=table,
        partitions=partitions.checkpoint_by_layer,
        inputs=[Input(gradient_factors, partitions.whole_checkpoint()), *inputs],
        find_stale=lambda freshness: stale_preconditioners(freshness, table),
        is_used=is_used,
        options=CurvatureConfig if is_refinable else None,
        on_device=True,
        kinds={"torch", "deltalake"},
    )(compute)


def _data_version(row: Mapping[str, Any]) -> str:
    """Return the row's version; a refined basis, which changes scores, gives another one."""
    version, basis = str(row["version"]), row.get("basis_version")
    return content_hash([version, basis]) if basis else version


def _inline_picture(png: bytes) -> str:
    """Return a picture as Markdown that needs no other file."""
    return f"![spectrum](data:image/png;base64,{base64.b64encode(png).decode()})"
