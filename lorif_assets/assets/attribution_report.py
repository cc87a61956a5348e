"""The attribution report: one self-contained HTML page per checkpoint and query set."""

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, Wait, attribution_asset
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.freshness.attribution import stale_reports
from lorif_assets.lake.attribution_tables import REPORTS


@attribution_asset(
    group="attribution",
    table=REPORTS,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[Input(query_scores, wait=Wait.FOR_IT_ALONE)],
    find_stale=stale_reports,
    kinds={"html"},
)
def attribution_report(run: PartitionRun) -> Materializations:
    """Every query with its proponents and opponents, and the curvature behind the scores, as a page to read and send."""
    from lorif_assets.pages.report.assembly import assemble
    from lorif_assets.pages.report.page import render

    for name, query_sets in run.by_checkpoint().items():
        record = run.stored(name).record
        for query_set, key in query_sets.items():
            content = assemble(run.lake, record, query_set, run.settings.recipe, run.provenance)
            page, version = render(content), content.provenance["scores"]
            where, line = run.lake.write_page(f"reports/{name}/{query_set}.html", page.encode())
            with run.tracked(name, [key]) as tracked:
                if tracked:
                    tracked.text(page, f"{query_set}.html")
            partition = {"checkpoint": name, "query_set": query_set}
            row = {**partition, "uri": where, "computed_from": version, "page": line}
            run.lake.replace(REPORTS, partition, pa.Table.from_pylist([row], schema=REPORTS.columns))
            yield from run.commit(
                key,
                version,
                {
                    "report": dg.MetadataValue.path(where),
                    "queries": len(content.queries),
                    "examples": content.n_examples,
                    "bytes": len(page.encode()),
                },
            )
