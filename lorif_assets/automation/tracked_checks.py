"""What the checks said of what is stored, told to MLflow: beside the figures of each checkpoint."""

from collections.abc import Iterable

import dagster as dg

from lorif_assets.assets.partitions import checkpoints_in
from lorif_assets.automation.untold import tell_what_is_untold
from lorif_assets.checks.latest_results import outcomes
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.pages.tracked_facts import checkpoint_facts
from lorif_assets.project import Project

_LISTED = 20


def check_tracking_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that tells MLflow what the checks of a run said, which end after what the run computed is tracked."""

    @dg.run_status_sensor(
        name="check_tracking",
        description="Tells MLflow what the checks of a run said, once it is over, and of killed runs; computes nothing.",
        run_status=dg.DagsterRunStatus.SUCCESS,
        minimum_interval_seconds=settings.automation.interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def check_tracking(context: dg.RunStatusSensorContext, settings: dg.ResourceParam[Settings]) -> None:
        checkpoints = checkpoints_in(context.dagster_run.tags, context.instance)
        project = Project.of(settings)
        tell_what_is_untold(context.instance, project.tracking)
        track_checks(context.instance, project, checkpoints or ())

    return check_tracking


def track_checks(instance: dg.DagsterInstance, project: Project, checkpoints: Iterable[str]) -> None:
    """Tell the runs of some checkpoints how many checks passed when they last ran, how many did not, and which."""
    if project.tracking.uri is None:
        return
    recorded = set(project.lake.read(CHECKPOINTS, ["checkpoint"])["checkpoint"])
    found = list(outcomes(instance))
    failed = sorted(one.name for one in found if not one.passed)
    figures = {"checks_passed": len(found) - len(failed), "checks_failed": len(failed)}
    for checkpoint in recorded.intersection(checkpoints) if found else ():
        with project.tracking.checkpoint(checkpoint, checkpoint_facts(project, checkpoint)) as run:
            if run:
                run.checkpoint_metrics(figures)
                run.checkpoint_tags({"lorif.failed_checks": ", ".join(failed[:_LISTED])})
