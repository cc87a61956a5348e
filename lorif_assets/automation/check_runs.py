"""Running the checks of some assets in this process, and what they found wrong."""

from collections.abc import Collection
from dataclasses import dataclass

import dagster as dg

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.automation.dead_runs import PROCESS_TAG, process_tag
from lorif_assets.checks import CHECKS
from lorif_assets.project import Project
from resources import dagster_resources


@dataclass(frozen=True)
class FailedCheck:
    """A check that did not pass, or could not be evaluated."""

    asset: str
    check: str
    description: str
    is_warning: bool


def failed_checks(
    instance: dg.DagsterInstance, assets: Collection[AttributionAsset], names: Collection[str], project: Project
) -> list[FailedCheck]:
    """Evaluate the checks of some assets on what is stored, as one Dagster run, and return those that did not pass.

    Args:
        instance: Dagster's instance; its UI shows the results.
        assets: the graph.
        names: the assets whose checks are evaluated.
        project: what is checked.
    """
    checks = {check.check_key: check for check in CHECKS if check.check_key.asset_key.to_user_string() in names}
    if not checks:
        return []
    result = dg.materialize(
        [*(asset.definition for asset in assets), *checks.values()],
        selection=dg.AssetSelection.checks(*checks),
        instance=instance,
        tags={PROCESS_TAG: process_tag()},
        resources=dagster_resources(project),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
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
