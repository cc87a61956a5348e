"""The job that attributes one checkpoint, chosen as its partition."""

import dagster as dg

from lorif_assets.automation.jobs import attribute_checkpoint
from lorif_assets.lake.attribution_tables import QUERY_SUMMARIES
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject


def test_one_checkpoint_is_attributed_active_or_not_and_no_other(private_project: TinyProject) -> None:
    early = CHECKPOINTS[0]
    project = private_project.with_settings(active={"checkpoints": "newest"})
    for name in CHECKPOINTS:
        partition = {"checkpoint": name, "query_set": QUERY_SET}
        project.lake.replace(QUERY_SUMMARIES, partition, QUERY_SUMMARIES.columns.empty_table())
    with project._drawing():
        result = (
            dg.Definitions(jobs=[attribute_checkpoint], resources=dagster_resources(project.opened))
            .resolve_job_def("attribute_checkpoint")
            .execute_in_process(instance=project.instance, partition_key=early)
        )
    assert result.success
    assert set(project.table(QUERY_SUMMARIES)["checkpoint"]) == {early}
