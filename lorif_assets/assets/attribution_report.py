"""The attribution report: one self-contained HTML page per checkpoint and query set."""

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, Wait, attribution_asset
from lorif_assets.assets.exact_scores import exact_scores
from lorif_assets.assets.group_scores import group_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.assets.token_scores import token_scores
from lorif_assets.attribution.stored.versions import report_version
from lorif_assets.freshness.attribution import stale_reports
from lorif_assets.freshness.incomplete import look_at_checkpoints, marked_version
from lorif_assets.lake.attribution_tables import REPORTS
from lorif_assets.pages.addresses import report_address, report_file
from lorif_assets.pages.framed import framed_page


@attribution_asset(
    group="attribution",
    table=REPORTS,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[
        Input(query_scores, wait=Wait.FOR_IT_ALONE),
        Input(exact_scores, wait=Wait.FOR_IT_ALONE, is_used=lambda settings: settings.exact_scores.enabled),
        Input(group_scores, wait=Wait.FOR_IT_ALONE, is_used=lambda settings: settings.groups.enabled),
        Input(token_scores, wait=Wait.FOR_IT_ALONE, is_used=lambda settings: settings.token_scores.enabled),
    ],
    find_stale=stale_reports,
    kinds={"html"},
)
def attribution_report(run: PartitionRun) -> Materializations:
    """Every query with its proponents and opponents, and the curvature behind the scores, as a page to read and send."""
    from lorif_assets.pages.explorer.page import explored_report
    from lorif_assets.pages.report.assembly import assemble
    from lorif_assets.pages.report.page import render

    notices = look_at_checkpoints(run.project).report_notices()
    for name, query_sets in run.by_checkpoint().items():
        record, notice = run.stored(name).record, notices.get(name)
        for query_set, key in query_sets.items():
            explored = explored_report(run.settings.addresses.explorer, name, query_set)
            with run.tracked(name, [key], pages=[("The report, with links into the explorer", explored)]) as tracked:
                in_mlflow = {"in MLflow": tracked.checkpoint_url} if tracked and tracked.checkpoint_url else {}
                provenance = {**run.provenance, **in_mlflow}
                content = assemble(run.lake, record, query_set, run.settings.recipe, provenance, notice)
                version = marked_version(report_version(run.settings, content.provenance["scores"]), notice)
                page = render(content)
                where, line = run.lake.write_page(report_address(name, query_set), page.encode())
                if tracked:
                    framed = framed_page(page, run.settings.addresses.explorer)
                    tracked.text(framed, report_file(query_set))
                    tracked.text(framed, f"reports/{report_file(query_set)}", "checkpoint")
            partition = {"checkpoint": name, "query_set": query_set}
            row = {**partition, "uri": where, "computed_from": version, "page": line}
            run.lake.replace(REPORTS, partition, pa.Table.from_pylist([row], schema=REPORTS.columns))
            yield from run.commit(
                key,
                version,
                {
                    "report": dg.MetadataValue.path(where),
                    # A browser follows no link from Dagster's UI to a file.
                    "by_lorif_explore": dg.MetadataValue.url(explored),
                    "queries": len(content.queries),
                    "examples": content.n_examples,
                    "bytes": len(page.encode()),
                    **({"notice": notice} if notice else {}),
                },
            )
