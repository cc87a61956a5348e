"""The jobs: one for each asset, and those for a person or the clock."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from lorif_assets.assets.graph import ASSETS, GRAPH
from lorif_assets.assets.partitions import checkpoints
from lorif_assets.attribution.stored.vacuum import delete, superseded_files
from lorif_assets.automation.check_runs import CHECKS_JOB, failed_checks
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.run_executor import in_run_process
from lorif_assets.automation.run_tags import job_name
from lorif_assets.automation.superseded_runs import delete_runs, superseded_runs
from lorif_assets.automation.withdrawal import cut, withdraw
from lorif_assets.checks import CHECKS
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.leftovers import leftover_shards
from lorif_assets.freshness.view import ACTIVE, Asked, Freshness
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.project import Project
from resources import inspected_project

AssetJobs = dict[str, UnresolvedAssetJobDefinition]
"""By asset, the job that materializes it."""


def asset_jobs(executor: dg.ExecutorDefinition) -> AssetJobs:
    """Return a job for each asset, since a run has one kind of partitions, whose steps run as an executor says."""
    return {
        asset.name: dg.define_asset_job(
            job_name(asset),
            selection=[asset.definition],
            executor_def=executor,
            description=f"Materializes `{asset.name}` alone."
            + (" Part of the evaluation, which nothing starts by itself." if asset.on_demand else ""),
        )
        for asset in GRAPH
    }


# The steps, the asset and then its checks, share the run's process, since every further process would load torch again.
ASSET_JOBS = asset_jobs(in_run_process)


attribution_checks = dg.define_asset_job(
    CHECKS_JOB,
    selection=dg.AssetSelection.all_asset_checks(),
    description="Runs every asset check on what is stored.",
)


class WithdrawalConfig(dg.Config):
    """Which shards are withdrawn."""

    shards: list[str]
    """Those that leave the tables whole."""
    rows_of: list[str] = Field(default_factory=list)
    """Those that no source names any more, of which the rows leave that stand in other shards too."""


@dg.op
def withdraw_shards(
    context: dg.OpExecutionContext,
    config: WithdrawalConfig,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
) -> None:
    """Take shards that left their source, or the rows of them that stand elsewhere, out of the tables."""
    if config.rows_of:
        found = leftover_shards(Freshness.of(inspected_project(settings, lake, model_checkpoints)))
        for leftover in found:
            if leftover.shard in config.rows_of:
                cut(lake, context.instance, leftover)
                context.log.info(f"withdrew {len(leftover.superseded)} rows of {leftover.shard}")
    withdraw(lake, context.instance, config.shards)
    context.log.info(f"withdrew {', '.join(config.shards) or 'no whole shard'}")


@dg.job
def withdrawal() -> None:
    """Takes shards that left their source out of the tables; scores are then computed again without them."""
    withdraw_shards()


@dg.op
def bring_everything_up_to_date(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Materialize, one asset after another, what is missing or stale, and evaluate the checks of what was computed."""
    _bring_up_to_date(context, Project.of(settings), ACTIVE)


@dg.job
def re_attribution() -> None:
    """Brings everything active up to date in one run, for those who prefer a clock or a button to the sensor."""
    bring_everything_up_to_date()


@dg.op
def bring_checkpoint_up_to_date(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Materialize what is missing or stale of one checkpoint, the run's partition, and evaluate the checks of it."""
    _bring_up_to_date(context, Project.of(settings), Asked(checkpoints=[context.partition_key]))


@dg.job(partitions_def=checkpoints)
def attribute_checkpoint() -> None:
    """Attributes one checkpoint, active or not, from its data to its reports: choose it as the partition, and launch."""
    bring_checkpoint_up_to_date()


def _bring_up_to_date(context: dg.OpExecutionContext, project: Project, asked: Asked) -> None:
    computed = []
    for update in bring_up_to_date(context.instance, ASSETS, project, context.log.info, asked=asked):
        context.log.info(f"{update.asset}: {len(update.partitions) or 'no'} partitions computed")
        if update.partitions:
            computed.append(update.asset)
    for failure in failed_checks(context.instance, ASSETS, computed, project, asked):
        context.log.warning(failure.sentence)


class VacuumConfig(dg.Config):
    """Options of one run of `vacuum`."""

    dry_run: bool = False
    """List what would be deleted, and delete nothing."""


@dg.op
def delete_superseded_files(
    context: dg.OpExecutionContext,
    config: VacuumConfig,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
) -> None:
    """Delete files of the lake that nothing points to any more."""
    found = superseded_files(lake, settings.vacuum.retention_hours)
    if not config.dry_run:
        delete(lake, found)
    listing = "\n".join(f"{file.size:>14,}  {file.path}" for file in found)
    context.log.info(f"{len(found)} files {'would be ' if config.dry_run else ''}deleted\n{listing}")


@dg.op
def delete_superseded_runs(
    context: dg.OpExecutionContext, config: VacuumConfig, settings: dg.ResourceParam[Settings]
) -> None:
    """Delete old runs of which Dagster shows nothing as the newest."""
    before = datetime.now(UTC) - timedelta(days=settings.vacuum.run_days)
    found = superseded_runs(context.instance, GRAPH, [check.check_key for check in CHECKS], before)
    if not config.dry_run:
        delete_runs(context.instance, found)
    context.log.info(f"{len(found)} runs {'would be ' if config.dry_run else ''}deleted")


@dg.job
def vacuum() -> None:
    """Deletes superseded files older than `vacuum.retention_hours`, never one that a row or a ledger points to, and runs that
    ended more than `vacuum.run_days` ago, never one that made what Dagster shows as newest.
    """
    delete_superseded_files()
    delete_superseded_runs()
