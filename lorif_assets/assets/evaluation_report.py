"""The evaluation page: one self-contained HTML page per checkpoint and query set."""

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.linear_datamodeling_score import linear_datamodeling_score
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.removal_losses import removal_losses
from lorif_assets.assets.selection_losses import selection_losses
from lorif_assets.assets.source_retrieval import source_retrieval
from lorif_assets.assets.tail_patch import tail_patch
from lorif_assets.freshness.evaluation import stale_evaluation_reports
from lorif_assets.lake.evaluation_tables import EVALUATION_REPORTS
from lorif_assets.pages.addresses import evaluation_address, evaluation_file
from lorif_assets.pages.framed import framed_page


@attribution_asset(
    group="evaluation",
    table=EVALUATION_REPORTS,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[linear_datamodeling_score, source_retrieval, tail_patch, removal_losses, selection_losses],
    find_stale=stale_evaluation_reports,
    on_demand=True,
    one_at_a_time=True,
    kinds={"html"},
)
def evaluation_report(run: PartitionRun) -> Materializations:
    """How faithful the scores of every method are, where they lose, and what is not known, as a page to read and send."""
    from lorif_assets.pages.evaluation.assembly import assemble
    from lorif_assets.pages.evaluation.page import render

    lake = run.lake
    for name, query_sets in run.by_checkpoint().items():
        record = run.stored(name).record
        for query_set, key in query_sets.items():
            content = assemble(run.project, record, query_set, run.provenance)
            page = render(content)
            where, line = lake.write_page(evaluation_address(name, query_set), page.encode())
            with run.tracked(name, [key]) as tracked:
                if tracked:
                    tracked.text(framed_page(page, run.settings.addresses.explorer), evaluation_file(query_set))
            partition = {"checkpoint": name, "query_set": query_set}
            row = {**partition, "uri": where, "computed_from": content.version, "page": line}
            lake.replace(EVALUATION_REPORTS, partition, pa.Table.from_pylist([row], schema=EVALUATION_REPORTS.columns))
            yield from run.commit(
                key,
                content.version,
                {
                    "report": dg.MetadataValue.path(where),
                    "methods": len(content.methods),
                    "queries": content.n_queries,
                    "missing": [missing.part for missing in content.missing],
                    "bytes": len(page.encode()),
                },
            )
