"""What happens by itself: new partitions are added, and runs are launched until everything is up to date."""

from functools import partial

import dagster as dg

from lorif_assets.assets.graph import ASSETS, GRAPH
from lorif_assets.automation.dead_runs import fail_dead_runs, fail_stalled_runs
from lorif_assets.automation.jobs import ASSET_JOBS, AssetJobs, re_attribution, vacuum, withdrawal
from lorif_assets.automation.partition_states import count_states, partitions_id
from lorif_assets.automation.readiness import ready_partitions
from lorif_assets.automation.registration import active_names, new_partitions, register, retired_partitions
from lorif_assets.automation.tracked_checks import check_tracking_sensor
from lorif_assets.automation.unrecorded import unrecorded
from lorif_assets.automation.work import GROUP_TAG, IN_FLIGHT, given_up, work_to_do
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.data.shards import in_short
from lorif_assets.errors import LorifError
from lorif_assets.freshness.discovery import Discovered
from lorif_assets.freshness.leftovers import Fate, Leftovers, leftover_shards, shards_of
from lorif_assets.freshness.view import Freshness
from lorif_assets.hub.downloads import downloads_within
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.snapshot import LakeSnapshot
from lorif_assets.models.checkpoints import Checkpoints
from resources import inspected_project

_DOWNLOAD_SECONDS = 20.0
"""How long a look waits for data from the hub; Dagster gives up on one after a minute."""


_AT_REST = "everything is up to date or running"


def automation_definitions(
    settings: Settings, asset_jobs: AssetJobs = ASSET_JOBS
) -> tuple[list[dg.SensorDefinition], list[dg.ScheduleDefinition]]:
    """Return the sensors, which launch these jobs of assets, and the schedules that the settings describe."""
    automation = settings.automation
    status = dg.DefaultSensorStatus.RUNNING if automation.enabled else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name="discovery",
        description="Adds the shards, checkpoints and query sets that lorif.toml points at as partitions; computes nothing.",
        minimum_interval_seconds=automation.interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        asset_selection="*",
    )
    def discovery(
        context: dg.SensorEvaluationContext,
        settings: dg.ResourceParam[Settings],
        lake: dg.ResourceParam[Lake],
        model_checkpoints: dg.ResourceParam[Checkpoints],
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            with downloads_within(_DOWNLOAD_SECONDS):
                freshness = Freshness.of(inspected_project(settings, lake, model_checkpoints))
            found, active = freshness.discovered, active_names(freshness)
            requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = [
                *new_partitions(context.instance, found, active),
                *retired_partitions(context.instance, found, active),
            ]
        except LorifError as error:
            return dg.SkipReason(str(error))
        said = _said(context, found)
        if requests:
            return dg.SensorResult(dynamic_partitions_requests=requests)
        if (now := partitions_id(context.instance)) != context.cursor:
            count_states(context.instance, GRAPH)
            context.update_cursor(now)
        return dg.SkipReason("; ".join(["nothing new", *said]))

    @dg.sensor(
        name="re_attribution_sensor",
        description="Launches what is out of date once its inputs are up to date, at most one run per asset and checkpoint.",
        minimum_interval_seconds=automation.interval_seconds,
        default_status=status,
        jobs=[asset_jobs[asset.name] for asset in ASSETS],
    )
    def re_attribution_sensor(
        context: dg.SensorEvaluationContext,
        settings: dg.ResourceParam[Settings],
        lake: dg.ResourceParam[Lake],
        model_checkpoints: dg.ResourceParam[Checkpoints],
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            snapshot = LakeSnapshot.of(lake)
            with downloads_within(_DOWNLOAD_SECONDS):
                freshness = Freshness.of(inspected_project(settings, snapshot, model_checkpoints))
            register(context.instance, freshness.discovered, active_names(freshness))
            fail_dead_runs(context.instance)
            fail_stalled_runs(context.instance, settings.automation, GROUP_TAG)
            due = shards_of(leftover_shards(freshness), settings.automation.on_removed, Fate.WITHDRAWN, Fate.CUT)
            if due:
                names = in_short([leftover.shard for leftover in due])
                return dg.SkipReason(f"shards have to be withdrawn first, by withdrawal_sensor: {names}")
            # A setting that is corrected as an error says is a reason to try again.
            tried_under = content_hash(settings.model_dump(mode="json", exclude={"automation", "vacuum", "addresses"}))
            left = partial(given_up, context.instance, settings.automation, tried_under=tried_under)
            ready = dict(ready_partitions(freshness, given_up=left))
            if not any(ready.values()):
                # Nothing is out of date; it remains to record what was stored.
                ready = {asset.name: unrecorded(context.instance, freshness, asset, ()) for asset in ASSETS}
            requests = [
                dg.RunRequest(
                    job_name=asset_jobs[work.asset].name,
                    partition_key=work.partitions[0] if len(work.partitions) == 1 else None,
                    tags=work.tags,
                )
                for work in work_to_do(ready.items(), ASSETS, context.instance, settings.automation, tried_under)
            ]
        except LorifError as error:
            return dg.SkipReason(str(error))
        said = _said(context, freshness.discovered)
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SkipReason("; ".join(["everything else is up to date or running" if said else _AT_REST, *said]))

    @dg.sensor(
        name="withdrawal_sensor",
        description="Withdraws shards that left their source where the settings say so, and reports them where they do not.",
        minimum_interval_seconds=automation.interval_seconds,
        default_status=status,
        job=withdrawal,
    )
    def withdrawal_sensor(
        context: dg.SensorEvaluationContext,
        settings: dg.ResourceParam[Settings],
        lake: dg.ResourceParam[Lake],
        model_checkpoints: dg.ResourceParam[Checkpoints],
    ) -> dg.SensorResult | dg.SkipReason:
        on_removed = settings.automation.on_removed
        try:
            with downloads_within(_DOWNLOAD_SECONDS):
                freshness = Freshness.of(inspected_project(settings, LakeSnapshot.of(lake), model_checkpoints))
            leftovers = Leftovers.of(freshness)
        except LorifError as error:
            # A source that does not exist at all is a fault, never a withdrawal.
            return dg.SkipReason(str(error))
        whole, in_part = (
            [leftover.shard for leftover in shards_of(leftovers.shards, on_removed, fate)]
            for fate in (Fate.WITHDRAWN, Fate.CUT)
        )
        if not whole and not in_part:
            return dg.SkipReason("; ".join(leftovers.notes(settings.automation)) or "no shard left its source")
        if context.instance.get_runs_count(dg.RunsFilter(job_name=withdrawal.name, statuses=IN_FLIGHT)):
            return dg.SkipReason("a withdrawal is running")
        config = {"shards": whole, **({"rows_of": in_part} if in_part else {})}
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_config={"ops": {"withdraw_shards": {"config": config}}})]
        )

    nightly = dg.ScheduleDefinition(
        name="nightly_re_attribution",
        description="Brings everything active up to date at the time of `automation.schedule`, in place of the sensor.",
        job=re_attribution,
        cron_schedule=automation.schedule,
    )
    weekly = dg.ScheduleDefinition(
        name="weekly_vacuum",
        description="Deletes superseded files at the time of `vacuum.schedule`, once they are older than is kept.",
        job=vacuum,
        cron_schedule=settings.vacuum.schedule,
        default_status=dg.DefaultScheduleStatus.RUNNING if automation.enabled else dg.DefaultScheduleStatus.STOPPED,
    )
    tracking = [] if settings.tracking_uri is None else [check_tracking_sensor(settings)]
    return [discovery, re_attribution_sensor, withdrawal_sensor, *tracking], [nightly, weekly]


def _said(context: dg.SensorEvaluationContext, found: Discovered) -> list[str]:
    """Log what cannot be used or was passed over, which a tick that launches runs shows nowhere else, and return it."""
    said = [*(f"{what}: {reason}" for what, reason in found.faults.items()), *found.notes]
    for sentence in said:
        context.log.warning(sentence)
    return said
