"""Running the checks of some assets in this process, and what they found wrong."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import dagster as dg

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.automation.in_process_runs import execute_run
from lorif_assets.automation.tracked_checks import track_checks
from lorif_assets.checks import CHECKS
from lorif_assets.freshness.view import ACTIVE, Asked, Freshness
from lorif_assets.project import Project

CHECKS_JOB = "attribution_checks"
"""The job of all checks, and what runs of some of them are called too."""
ASSETS_TAG = "lorif/assets"


@dataclass(frozen=True)
class FailedCheck:
    """A check that did not pass, or could not be evaluated."""

    asset: str
    check: str
    description: str
    is_warning: bool

    @property
    def sentence(self) -> str:
        """What it says, for a line of a terminal or a log."""
        return f"check {self.check} of {self.asset} does not pass: {self.description}"


def failed_checks(
    instance: dg.DagsterInstance,
    assets: Sequence[AttributionAsset],
    names: Collection[str],
    project: Project,
    asked: Asked = ACTIVE,
) -> list[FailedCheck]:
    """Evaluate the checks of some assets on what is stored, as one Dagster run, and return those that did not pass.

    MLflow is told too, beside the figures of the checkpoints that are asked for.

    Args:
        instance: Dagster's instance; its UI shows the results.
        assets: the graph.
        names: the assets whose checks are evaluated.
        project: what is checked.
        asked: the checkpoints that it is told of in MLflow, in place of the active ones.
    """
    checks = {check.check_key: check for check in CHECKS if check.check_key.asset_key.to_user_string() in names}
    if not checks:
        return []
    result = execute_run(
        instance,
        assets,
        project,
        CHECKS_JOB,
        dg.AssetSelection.checks(*checks),
        {ASSETS_TAG: ", ".join(sorted({key.asset_key.to_user_string() for key in checks}))},
        checks=checks.values(),
    )
    track_checks(instance, project, Freshness.of(project, asked).active_checkpoints)
    evaluations = {evaluation.asset_check_key: evaluation for evaluation in result.get_asset_check_evaluations()}
    failures = []
    for key in checks:
        evaluation = evaluations.get(key)
        if evaluation is None or not evaluation.passed:
            failures.append(
                FailedCheck(
                    key.asset_key.to_user_string(),
                    key.name,
                    (evaluation.description or "")
                    if evaluation
                    else f"not evaluated; see Dagster's run {result.run_id}",
                    evaluation is not None and evaluation.severity is dg.AssetCheckSeverity.WARN,
                )
            )
    return failures
