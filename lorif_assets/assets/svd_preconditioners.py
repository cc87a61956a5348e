"""SVD preconditioners: each layer's curvature over all training examples, as leading eigenpairs and a mean tail."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.checkpoint import StoredCheckpoint
from lorif_assets.attribution.curvatures import curvature_of
from lorif_assets.attribution.fit_curvature import fit_curvature
from lorif_assets.config.recipe import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.devices import Devices
from lorif_assets.pages.report.assembly import layer_spectrum
from lorif_assets.pages.report.content import LayerSpectrum
from lorif_assets.progress import Progress
from lorif_assets.tracking import Tracking


class CurvatureConfig(dg.Config):
    """Options of one run of `svd_preconditioners`."""

    refine: bool = False
    """Fit each layer's basis to the data of now, in one more pass over all factors; scores then renew."""


@dg.asset(
    group_name="attribution",
    partitions_def=partitions.checkpoint_by_layer,
    deps=[dg.AssetDep(gradient_factors, partition_mapping=partitions.whole_checkpoint())],
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(SVD_PRECONDITIONERS),
)
def svd_preconditioners(
    context: dg.AssetExecutionContext,
    config: CurvatureConfig,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    devices: dg.ResourceParam[Devices],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """A layer's curvature H = sum of g g^T over the factorised gradients: leading eigenpairs, trace and damping.

    With a curvature that is stored elsewhere there is nothing to do.
    """
    if curvature_of(settings.recipe).table != SVD_PRECONDITIONERS:
        context.log.info(f'nothing to do: recipe.curvature is "{settings.recipe.curvature}"')
        return
    from lorif_assets.pages.report.plots import spectrum_png

    commits = PartitionCommits(context)
    for name, layers in partitions.by_checkpoint(context.partition_keys, partitions.LAYER).items():
        checkpoint = StoredCheckpoint.read(lake, name, settings.recipe)
        checkpoint.record.refuse_other_layers(layers)
        stored = checkpoint.factors
        tags = {"dagster.run_id": context.run_id, "dagster.partition": ", ".join(layers.values())[:4_000]}
        spectra = []
        with (
            devices.lease() as group,
            tracking.materialization(name, "svd_preconditioners", tags, settings.recipe.model_dump()) as run,
            Progress(context.log, f"{name} curvature", stored.n_examples * len(layers), "examples") as progress,
        ):
            for index, (layer, key) in enumerate(layers.items()):
                fit, row = fit_curvature(
                    checkpoint,
                    layer,
                    rows=settings.batch.scan_rows,
                    device=group.first,
                    refine_below=settings.curvature.refine_below,
                    refine=config.refine,
                )
                spectrum = layer_spectrum(row)
                spectra.append(spectrum)
                progress.advance(stored.n_examples)
                if run:
                    run.metrics(spectrum_figures(spectrum), index)
                yield from commits.commit(
                    key,
                    _data_version(row),
                    {
                        "how": fit.how,
                        "examples": stored.n_examples,
                        "examples_read": fit.rows_read,
                        "shards": len(stored.files),
                        "d1": spectrum.d1,
                        "d2": spectrum.d2,
                        "r": spectrum.r,
                        **spectrum_figures(spectrum),
                        **_drift(row),
                        "spectrum": dg.MetadataValue.md(inline_picture(spectrum_png([spectrum]))),
                    },
                )
            if run:
                run.image(spectrum_png(spectra), "spectra.png")


def spectrum_figures(spectrum: LayerSpectrum) -> dict[str, float]:
    """Return what is tracked of a layer's curvature."""
    return {"captured_energy": spectrum.captured_energy, "trace": spectrum.trace, "damping": spectrum.damping}


def _data_version(row: Mapping[str, Any]) -> str:
    """Return the row's version; a refined basis, which changes scores, is another one."""
    version, basis = str(row["version"]), row["basis_version"]
    return content_hash([version, basis]) if basis else version


def _drift(row: Mapping[str, Any]) -> dict[str, float | bool]:
    share = {"added_energy_share": row["added_energy_captured"] / row["added_energy"]} if row["added_energy"] else {}
    return {"fitted_energy": row["fitted_energy"], **share, "needs_refine": row["needs_refine"]}


def inline_picture(png: bytes) -> str:
    """Return a picture of a spectrum as Markdown that needs no other file."""
    import base64

    return f"![spectrum](data:image/png;base64,{base64.b64encode(png).decode()})"
