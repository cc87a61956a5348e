"""The assets that keep curvatures' preconditioners, one for each table: a partition per layer, fitted from stored factors."""

from functools import partial

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import AttributionAsset, Input, Materializations, Wait, attribution_asset
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.attribution.checkpoints.opened import CheckpointOpening
from lorif_assets.attribution.fitting.fit_curvature import commit_layer, fitted_layer
from lorif_assets.attribution.stored.curvatures import curvature_of, curvature_tables, curvatures_in, whitened_in
from lorif_assets.attribution.stored.versions import refined_version
from lorif_assets.compute.shard_work import Step
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.attribution import stale_preconditioners
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.pages import markdown
from lorif_assets.pages.report.layers import ShownLayers


class CurvatureConfig(dg.Config):
    """Options of one run of an asset whose curvature has a basis that can be refined."""

    refine: bool = False
    """Fit each layer's basis to the current data, in one more pass over all factors; scores are then computed again."""


def preconditioner_asset(table: TableSchema) -> AttributionAsset:
    """Make the asset that keeps a table of preconditioners; under a curvature that is stored elsewhere it does nothing."""
    spokesman = next(iter(curvatures_in(table).values()))
    bases = [Input(kfac_bases, wait=Wait.FOR_IT_ALONE)] if whitened_in(table) else []

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
            kind, factors, spectra = curvature_of(settings.recipe), stored.factors, {}
            shown_layers = ShownLayers.of(run.lake, checkpoint, settings.recipe)
            opening = CheckpointOpening(stored, run.checkpoints, settings.batch, loads=False)
            work = Step(fitted_layer, (settings.curvature.refine_below, any(one.refine for one in options)))
            with (
                run.tracked(checkpoint, layers.values(), settings.recipe.model_dump()) as tracked,
                run.workers(opening) as workers,
                run.progress(f"{checkpoint} {table.name}", len(layers), "layers") as progress,
            ):
                fits = workers.map_shards(work, list(layers), partial(commit_layer, stored))
                by_layer: dict[str, dict[str, float]] = {}
                for layer, outcome in fits:
                    fit = outcome.result()
                    row = fit.row
                    shown, metrics = shown_layers.shown(row), kind.metrics(row)
                    spectra[layer] = shown
                    progress.advance(1)
                    by_layer[layer] = dict(metrics)
                    metadata = {
                        "how": fit.history,
                        "examples": factors.n_examples,
                        "shards": len(factors.files),
                        "d1": row["d1"],
                        "d2": row["d2"],
                        **(
                            {"examples_read": fit.rows_read} if kind.reads_factors else {"shards_read": fit.shards_read}
                        ),
                        **kind.remarks(row),
                        **metrics,
                    }
                    if len(spectra) == len(layers):
                        # With the last layer alone: a picture of each takes longer than its fit, and 60 KB of the event log.
                        spectra_png = spectrum_png([spectra[name] for name in layers])
                        metadata["spectra"] = dg.MetadataValue.md(markdown.picture(spectra_png, "spectra"))
                    yield from run.commit(
                        layers[layer], refined_version(str(row["version"]), row.get("basis_version")), metadata
                    )
                if tracked:
                    tracked.partitions(by_layer)
                    tracked.image(spectra_png, "spectra.png")

    return attribution_asset(
        name=table.name,
        description=spokesman.description,
        group="attribution",
        table=table,
        partitions=partitions.checkpoint_by_layer,
        inputs=[Input(gradient_factors, partitions.whole_checkpoint()), *bases],
        find_stale=lambda freshness: stale_preconditioners(freshness, table),
        is_used=is_used,
        options=CurvatureConfig if spokesman.is_refinable else None,
        on_device=True,
        kinds={"torch", "deltalake"},
    )(compute)


PRECONDITIONERS = tuple(preconditioner_asset(table) for table in curvature_tables())
"""The assets of all curvatures, of which a recipe uses one."""
