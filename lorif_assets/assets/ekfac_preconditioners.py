"""EK-FAC preconditioners: each layer's eigenvalues in the K-FAC bases, over all training examples."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.svd_preconditioners import inline_picture
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.checkpoint import StoredCheckpoint
from lorif_assets.attribution.curvatures import curvature_of
from lorif_assets.attribution.fit_curvature import fit_curvature
from lorif_assets.attribution.versions import preconditioner_version
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import EKFAC_PRECONDITIONERS, KFAC_BASES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.devices import Devices
from lorif_assets.pages.report.assembly import whitened_layer
from lorif_assets.progress import Progress
from lorif_assets.tracking import Tracking


@dg.asset(
    group_name="attribution",
    partitions_def=partitions.checkpoint_by_layer,
    deps=[
        dg.AssetDep(gradient_factors, partition_mapping=partitions.whole_checkpoint()),
        dg.AssetDep(kfac_bases),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(EKFAC_PRECONDITIONERS),
)
def ekfac_preconditioners(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    devices: dg.ResourceParam[Devices],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """A layer's EK-FAC eigenvalues: the mean square of rotated gradients, summed shard by shard.

    Shards that changed are subtracted and added; no factor is read. With a curvature that is stored elsewhere there is
    nothing to do.
    """
    if curvature_of(settings.recipe).table != EKFAC_PRECONDITIONERS:
        context.log.info(f'nothing to do: recipe.curvature is "{settings.recipe.curvature}"')
        return
    from lorif_assets.pages.report.plots import spectrum_png

    commits = PartitionCommits(context)
    for name, layers in partitions.by_checkpoint(context.partition_keys, partitions.LAYER).items():
        checkpoint = StoredCheckpoint.read(lake, name, settings.recipe)
        checkpoint.record.refuse_other_layers(layers)
        stored = checkpoint.factors
        tags = {"dagster.run_id": context.run_id, "dagster.partition": ", ".join(layers.values())[:4_000]}
        bases = {row["layer"]: row for row in lake.read(KFAC_BASES, checkpoint=name).to_dicts()}
        shown = []
        with (
            devices.lease() as group,
            tracking.materialization(name, "ekfac_preconditioners", tags, settings.recipe.model_dump()) as run,
            Progress(context.log, f"{name} EK-FAC", len(layers), "layers") as progress,
        ):
            for index, (layer, key) in enumerate(layers.items()):
                fit, row = fit_curvature(
                    checkpoint,
                    layer,
                    rows=settings.batch.scan_rows,
                    device=group.first,
                    refine_below=settings.curvature.refine_below,
                )
                whitened = whitened_layer(row, bases[layer])
                shown.append(whitened)
                figures = {
                    "mean_eigenvalue": whitened.mean_eigenvalue,
                    "trace": whitened.trace,
                    "damping": whitened.damping,
                }
                progress.advance(1)
                if run:
                    run.metrics(figures, index)
                metadata = {
                    "how": fit.how,
                    "examples": fit.curvature.count,
                    "shards": len(stored.files),
                    "shards_read": fit.shards_read,
                    "d1": whitened.d1,
                    "d2": whitened.d2,
                    **figures,
                    "spectrum": dg.MetadataValue.md(inline_picture(spectrum_png([whitened]))),
                }
                version = preconditioner_version(settings.recipe, checkpoint.record, stored.shard_hashes)
                yield from commits.commit(key, version, metadata)
            if run:
                run.image(spectrum_png(shown), "spectra.png")
