"""Bringing everything active up to date, in this process: each asset's stale partitions as one Dagster run per stretch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from lorif_assets.automation.dead_runs import PROCESS_TAG, fail_dead_runs, process_tag
from lorif_assets.automation.registration import register
from lorif_assets.automation.unrecorded import unrecorded
from lorif_assets.automation.work import stretches
from lorif_assets.data.rejected import rejected_counts
from lorif_assets.errors import CheckpointError, LorifError
from lorif_assets.freshness.discovery import discover
from lorif_assets.freshness.stale import StalePartitions
from lorif_assets.freshness.view import Freshness
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.project import Project
from resources import dagster_resources


@dataclass(frozen=True)
class AssetUpdate:
    """What was done for one asset: its partitions that were computed, each with the reason.

    `rejected` counts the rows that it has set aside, now or before, by kind of reason.
    """

    asset: str
    partitions: StalePartitions
    rejected: Mapping[str, int]


def bring_up_to_date(
    instance: dg.DagsterInstance,
    assets: Sequence[AttributionAsset],
    project: Project,
    announce: Callable[[str, int], None] = lambda _asset, _count: None,
    *,
    selection: Sequence[AttributionAsset] | None = None,
) -> Iterator[AssetUpdate]:
    """Materialize, asset by asset in the order of the graph, what is missing or stale, in this process.

    Args:
        instance: Dagster's instance; its UI shows the runs.
        assets: the graph, upstream first.
        project: what is brought up to date.
        announce: called with an asset's name and the number of its stale partitions before they run.
        selection: the assets of the graph to bring up to date; default: all.

    Raises:
        CheckpointError: there is no checkpoint, or none is complete.
        LorifError: an asset raised it; what was committed before stays.
    """
    discovered = discover(project)
    if not discovered.checkpoints:
        raise CheckpointError(_missing_checkpoint_reason(project.checkpoints))
    register(instance, discovered)
    fail_dead_runs(instance)
    for asset in assets if selection is None else selection:
        # A new view: it has to include what was computed for the last asset.
        freshness = Freshness(project, discovered)
        stale = asset.stale(freshness)
        stale = {**stale, **unrecorded(instance, freshness, asset, stale)}
        announce(asset.name, len(stale))
        for stretch in stretches(asset, stale, instance):
            _materialize(instance, assets, asset, stretch, project)
        yield AssetUpdate(asset.name, stale, rejected_counts(project.lake, asset.name, freshness.active_checkpoints))


def _missing_checkpoint_reason(model_checkpoints: Checkpoints) -> str:
    found = model_checkpoints.look()
    reasons = [*filter(None, (checkpoint.fault() for checkpoint in found.checkpoints)), *found.notes]
    return f"{model_checkpoints.location} has no complete checkpoint" + (f": {reasons[0]}" if reasons else " yet")


def _materialize(
    instance: dg.DagsterInstance,
    assets: Sequence[AttributionAsset],
    asset: AttributionAsset,
    stretch: Sequence[str],
    project: Project,
) -> None:
    is_single = len(stretch) == 1
    result = dg.materialize(
        [asset.definition for asset in assets],
        selection=[asset.definition],
        instance=instance,
        partition_key=stretch[0] if is_single else None,
        tags={
            PROCESS_TAG: process_tag(),
            **({} if is_single else {RANGE_START_TAG: stretch[0], RANGE_END_TAG: stretch[-1]}),
        },
        resources=dagster_resources(project),
        # What fails is raised below; Dagster keeps the traceback.
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    if not result.success:
        failures = [event for event in result.all_events if event.is_step_failure]
        error = failures[0].step_failure_data.error if failures else None
        cause = error.cause or error if error else None
        raise LorifError(
            f"materializing {asset.name} for {stretch[0]}{'' if is_single else f' to {stretch[-1]}'} failed: "
            + (cause.message.strip() if cause else "see Dagster's log")
            + f"\n(Dagster run {result.run_id})"
        )
