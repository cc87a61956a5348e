"""Bringing everything active up to date, in this process: each asset's stale partitions as one Dagster run per stretch."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.assets.partitions import (
    CHECKPOINT,
    QUERY_SET,
    SHARD,
    dimensions,
)
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.automation.dead_runs import fail_dead_runs
from lorif_assets.automation.in_process_runs import execute_run
from lorif_assets.automation.pools import watched_pool
from lorif_assets.automation.readiness import Waits
from lorif_assets.automation.registration import active_names, register
from lorif_assets.automation.run_tags import job_name, run_tags
from lorif_assets.automation.sole_process import sole_process
from lorif_assets.automation.unrecorded import unrecorded
from lorif_assets.automation.untold import tell_what_is_untold
from lorif_assets.automation.withdrawal import carry_out
from lorif_assets.automation.work import stretches
from lorif_assets.data.rows.rejected import rejected_counts
from lorif_assets.errors import CannotWriteError, CheckpointError, LorifError, TooManyRejectedError
from lorif_assets.freshness.discovery import discover
from lorif_assets.freshness.leftovers import leftover_shards
from lorif_assets.freshness.stale import Stale, StalePartitions
from lorif_assets.freshness.view import ACTIVE, Asked, Freshness
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.pages.number_format import counted
from lorif_assets.progress import partition_progress
from lorif_assets.project import Project


@dataclass(frozen=True)
class AssetUpdate:
    """What was done for one asset: its partitions that were computed, each with the reason.

    `rejected` counts the rows that it has set aside, now or before, by kind of reason. `failed` are the partitions that could
    not be computed, `waiting` those that were left because they are made from such.
    """

    asset: str
    partitions: StalePartitions
    rejected: Mapping[str, int]
    failed: Collection[str] = ()
    waiting: Collection[str] = ()


def bring_up_to_date(
    instance: dg.DagsterInstance,
    assets: Sequence[AttributionAsset],
    project: Project,
    announce: Callable[[str], None] = lambda _text: None,
    *,
    selection: Sequence[AttributionAsset] | None = None,
    asked: Asked = ACTIVE,
    rehash: bool = False,
) -> Iterator[AssetUpdate]:
    """Materialize, asset by asset in the order of the graph, what is missing or stale, in this process.

    Another process that does the same on the lake is waited for; what it has done is not done again. What fails keeps only
    what is made from it from being computed: of training data, query files and checkpoints that cannot be read, what was
    stored before stays in use, and the others go on without the rest.

    Once the sources are read, stored shards that no source names any more are withdrawn as `automation.on_removed` says.

    Args:
        instance: Dagster's instance; its UI shows the runs.
        assets: the graph, upstream first.
        project: what is brought up to date.
        announce: called with what is waited for, or about to be computed, in words.
        selection: the assets of the graph to bring up to date; default: all.
        asked: the checkpoints and query sets that are, in place of the active ones.
        rehash: whether everything outside is read again, in case a file was replaced unseen; what its bytes leave as it was is
            not computed again.

    Raises:
        CheckpointError: there is no checkpoint, or none is complete.
        LorifError: something failed, once all the rest is done; more rows were set aside than the settings allow, at once.
            What was committed stays.
        SettingsError: a checkpoint or query set that is asked for is not there.
        KeyboardInterrupt: the person who waits interrupts it. What was committed stays.
    """
    with sole_process(project.lake, announce):
        yield from _updates(
            instance, assets, project, announce, assets if selection is None else selection, asked, rehash=rehash
        )


def _updates(
    instance: dg.DagsterInstance,
    assets: Sequence[AttributionAsset],
    project: Project,
    announce: Callable[[str], None],
    selection: Sequence[AttributionAsset],
    asked: Asked,
    *,
    rehash: bool,
) -> Iterator[AssetUpdate]:
    discovered = discover(project)
    if not discovered.checkpoints:
        raise CheckpointError(_missing_checkpoint_reason(project.checkpoints))
    fail_dead_runs(instance)
    errors = []
    for what, reason in discovered.faults.items():
        if asked.checkpoints and what.startswith("checkpoint "):
            # Nobody asks for that one, or it is refused by its name.
            announce(f"{what} is left out: {reason}")
        else:
            errors.append(f"{what}: {reason}")
    waits = Waits(project.settings)
    for asset in selection:
        # A new view: it has to include what was computed for the last asset.
        freshness = Freshness(project, discovered, asked)
        # Each time: the sensor may have retired a checkpoint that was asked for.
        register(instance, discovered, active_names(freshness))
        stale = {**(_read_again(asset, freshness) if rehash else {}), **asset.stale(freshness)}
        stale = {**stale, **unrecorded(instance, freshness, asset, stale)}
        ready = waits.ready(asset, freshness, stale)
        if ready:
            announce(f"{asset.name:<22} {counted(len(ready), 'partition')} to compute")
        tried: set[str] = set()
        with partition_progress(asset.name, len(ready)):
            for stretch in stretches(asset, ready, instance):
                try:
                    with watched_pool(instance, asset, project.settings.automation, announce):
                        _materialize(instance, assets, asset, stretch, project)
                except (TooManyRejectedError, CannotWriteError) as error:
                    raise type(error)("\n".join([*errors, str(error)])) from error
                except LorifError as error:
                    errors.append(str(error))
                    tried.update(stretch)
        failed = tried & asset.stale(Freshness(project, discovered, asked)).keys() if tried else tried
        waiting = stale.keys() - ready.keys()
        if asset is training_examples:
            # Before anything is computed of rows that stand twice.
            leftovers = leftover_shards(Freshness(project, discovered, asked))
            for sentence in carry_out(project.lake, instance, leftovers, project.settings.automation.on_removed):
                announce(sentence)
        # What is read from outside and fails is left out; what is computed and fails is missing in what is made from it.
        waits.hold_up(asset, failed | waiting if asset.inputs else ())
        yield AssetUpdate(
            asset.name,
            {key: partition for key, partition in ready.items() if key not in failed},
            rejected_counts(project.lake.without_damaged(), asset.name, freshness.active_checkpoints),
            sorted(failed),
            sorted(waiting),
        )
    tell_what_is_untold(instance, project.tracking)
    if errors:
        raise LorifError("\n".join(errors))


def _read_again(asset: AttributionAsset, freshness: Freshness) -> StalePartitions:
    """Return all active partitions of an asset that reads what lies outside; none of one that is made from others."""
    if asset.inputs:
        return {}
    discovered = freshness.discovered
    names = {SHARD: discovered.shards, CHECKPOINT: freshness.active_checkpoints, QUERY_SET: freshness.active_query_sets}
    (dimension,) = dimensions(asset.partitions)
    return {name: Stale("read again, as was asked", "read again") for name in names.get(dimension, ())}


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
    result = execute_run(
        instance,
        assets,
        project,
        job_name(asset),
        dg.AssetSelection.assets(asset.definition),
        run_tags(stretch),
        partition=stretch[0] if is_single else None,
    )
    if not result.success:
        failures = [event for event in result.all_events if event.is_step_failure]
        error = failures[0].step_failure_data.error if failures else None
        cause = error.cause or error if error else None
        kinds = {*_kinds(error)}
        ends_all = (kind for kind in (TooManyRejectedError, CannotWriteError) if kind.__name__ in kinds)
        kind: type[Exception] = next(ends_all, LorifError)
        raise kind(
            f"materializing {asset.name} for {stretch[0]}{'' if is_single else f' to {stretch[-1]}'} failed: "
            + (_message(cause) if cause else "see Dagster's log")
            + f"\n(Dagster run {result.run_id})"
        )


def _message(error: SerializableErrorInfo) -> str:
    """Return what an error says; the class of one that a user can mend says nothing more."""
    return error.message.strip().removeprefix(f"{LorifError.__module__}.{error.cls_name}: ")


def _kinds(error: SerializableErrorInfo | None) -> Iterator[str | None]:
    """Yield the names of the classes of an error and of its causes."""
    while error:
        yield error.cls_name
        error = error.cause
