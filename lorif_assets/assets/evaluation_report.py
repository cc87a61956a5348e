"""The evaluation page: one self-contained HTML page per checkpoint and query set."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.linear_datamodeling_score import linear_datamodeling_score
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.removal_losses import removal_losses
from lorif_assets.assets.source_retrieval import source_retrieval
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.assets.tail_patch import tail_patch
from lorif_assets.attribution.model import checkpoint_record
from lorif_assets.config.settings import Settings
from lorif_assets.lake.evaluation_tables import EVALUATION_REPORTS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.tracking import Tracking


@dg.asset(
    group_name="evaluation",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[linear_datamodeling_score, source_retrieval, tail_patch, removal_losses],
    code_version="1",
    owners=OWNERS,
    kinds={"html"},
    metadata=table_metadata(EVALUATION_REPORTS),
)
def evaluation_report(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """How faithful the scores of every method are, where they lose, and what is not known, as a page to read and send."""
    from lorif_assets.pages.evaluation.assembly import assemble
    from lorif_assets.pages.evaluation.page import render

    commits = PartitionCommits(context)
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        record = checkpoint_record(lake, name, settings.recipe)
        for query_set, key in query_sets.items():
            content = assemble(lake, settings, model_checkpoints, record, query_set, {"dagster run": context.run_id})
            page = render(content)
            where = lake.write_file(f"reports/{name}/evaluation-{query_set}.html", page.encode())
            tags = {"dagster.run_id": context.run_id, "dagster.partition": key}
            with tracking.materialization(name, "evaluation_report", tags, {}) as run:
                if run:
                    run.text(page, f"evaluation-{query_set}.html")
            row = {"checkpoint": name, "query_set": query_set, "uri": where, "computed_from": content.version}
            lake.replace(
                EVALUATION_REPORTS,
                {"checkpoint": name, "query_set": query_set},
                pa.Table.from_pylist([row], schema=EVALUATION_REPORTS.columns),
            )
            yield from commits.commit(
                key,
                content.version,
                {
                    "report": dg.MetadataValue.path(where),
                    "methods": len(content.methods),
                    "queries": content.n_queries,
                    "missing": [missing.what for missing in content.missing],
                    "bytes": len(page.encode()),
                },
            )
