"""The attribution report: one self-contained HTML page per checkpoint and query set."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.model import checkpoint_record
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import REPORTS
from lorif_assets.lake.lake import Lake
from lorif_assets.tracking import Tracking


@dg.asset(
    group_name="attribution",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[query_scores],
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    code_version="1",
    owners=OWNERS,
    kinds={"html"},
    metadata=table_metadata(REPORTS),
)
def attribution_report(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Every query with its proponents and opponents, and the curvature behind the scores, as a page to read and send."""
    from lorif_assets.pages.report.assembly import assemble
    from lorif_assets.pages.report.page import render

    commits = PartitionCommits(context)
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        record = checkpoint_record(lake, name, settings.recipe)
        for query_set, key in query_sets.items():
            content = assemble(lake, record, query_set, settings.recipe, {"dagster run": context.run_id})
            page = render(content)
            where = lake.write_file(f"reports/{name}/{query_set}.html", page.encode())
            tags = {"dagster.run_id": context.run_id, "dagster.partition": key}
            with tracking.materialization(name, "attribution_report", tags, {}) as run:
                if run:
                    run.text(page, f"{query_set}.html")
            row = {
                "checkpoint": name,
                "query_set": query_set,
                "uri": where,
                "computed_from": content.provenance["scores"],
            }
            lake.replace(
                REPORTS,
                {"checkpoint": name, "query_set": query_set},
                pa.Table.from_pylist([row], schema=REPORTS.columns),
            )
            yield from commits.commit(
                key,
                content.provenance["scores"],
                {
                    "report": dg.MetadataValue.path(where),
                    "queries": len(content.queries),
                    "examples": content.n_examples,
                    "bytes": len(page.encode()),
                },
            )
