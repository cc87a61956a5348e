"""What to run next so that everything active becomes true again: decided from the lake's state, not from events."""

import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from lorif_assets.config.recipe import content_hash
from lorif_assets.config.settings import AutomationSettings
from lorif_assets.freshness.stale import Stale, StalePartitions
from lorif_assets.freshness.staleness import Staleness

GROUP_TAG = "lorif/group"
WORK_TAG = "lorif/work"
RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
IN_FLIGHT = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


MOST_PARTITIONS = 1_000
"""Of one run that the sensor launches. Dagster stores an event of each before a run begins, some 10 ms on SQLite, and its
daemon evaluates no sensor meanwhile."""


@dataclass(frozen=True)
class Work:
    """Partitions of one asset to compute in one run; `group` is the asset and checkpoint, of which one run is in flight."""

    asset: str
    group: str
    partitions: tuple[str, ...]
    version: str
    """Hash of the partitions and of what they should become: the same work has the same version."""

    @property
    def tags(self) -> dict[str, str]:
        """The run's tags."""
        span = (
            {}
            if len(self.partitions) == 1
            else {RANGE_START_TAG: self.partitions[0], RANGE_END_TAG: self.partitions[-1]}
        )
        return {GROUP_TAG: self.group, WORK_TAG: self.version, **span}


def ready_partitions(staleness: Staleness) -> Iterator[tuple[str, StalePartitions]]:
    """Yield each asset with its stale partitions whose inputs are all up to date, in the order of the graph."""
    examples, queries = staleness.training_examples(), staleness.query_examples()
    checkpoints = staleness.checkpoints()
    yield "training_examples", examples
    yield "query_examples", queries
    yield "checkpoints", checkpoints
    bases = {
        key: stale
        for key, stale in staleness.kfac_bases().items()
        if not examples and _checkpoint(key) not in checkpoints
    }
    yield "kfac_bases", bases
    unfitted = {_checkpoint(key) for key in staleness.kfac_bases()}
    factors = staleness.gradient_factors()
    yield (
        "gradient_factors",
        {
            key: stale
            for key, stale in factors.items()
            if _checkpoint(key) not in (checkpoints.keys() | unfitted) and _other(key) not in examples
        },
    )
    # A checkpoint's curvature and scores wait until all of its data is there: half of it would be computed twice.
    waiting = set(checkpoints) | {_checkpoint(key) for key in factors}
    settled: dict[str, Stale] = {}
    for name, preconditioners in (
        ("svd_preconditioners", staleness.svd_preconditioners()),
        ("ekfac_preconditioners", staleness.ekfac_preconditioners()),
    ):
        ready = {k: s for k, s in preconditioners.items() if not examples and _checkpoint(k) not in waiting}
        yield name, ready
        settled |= ready
    waiting |= {_checkpoint(key) for key in settled}
    targets, encoders, embeddings = (
        staleness.influence_targets(),
        staleness.influcoder_encoder(),
        staleness.influence_embeddings(),
    )
    yield (
        "influence_targets",
        {key: stale for key, stale in targets.items() if not examples and key not in waiting},
    )
    yield "influcoder_encoder", {key: stale for key, stale in encoders.items() if key not in targets}
    unencoded = {*targets, *encoders}
    yield (
        "influence_embeddings",
        {
            key: stale
            for key, stale in embeddings.items()
            if _checkpoint(key) not in unencoded and _other(key) not in examples
        },
    )
    unembedded = unencoded | {_checkpoint(key) for key in embeddings}
    yield (
        "influcoder_scores",
        {
            key: stale
            for key, stale in staleness.influcoder_scores().items()
            if not examples and _checkpoint(key) not in unembedded and _other(key) not in queries
        },
    )
    yield (
        "influcoder_agreement",
        {key: stale for key, stale in staleness.influcoder_agreement().items() if key not in unencoded},
    )
    yield (
        "recall_curves",
        {
            key: stale
            for key, stale in staleness.recall_curves().items()
            if not examples and _checkpoint(key) not in unembedded | waiting and _other(key) not in queries
        },
    )
    if staleness.settings.recipe.recall == "influcoder":
        waiting |= unembedded
    waiting |= staleness.averaged_with_any(waiting)
    scores = staleness.query_scores()
    yield (
        "query_scores",
        {
            key: stale
            for key, stale in scores.items()
            if not examples and _checkpoint(key) not in waiting and _other(key) not in queries
        },
    )
    yield (
        "attribution_report",
        {key: stale for key, stale in staleness.attribution_report().items() if key not in scores},
    )
    unsettled = {_other(key) for key in scores}
    yield (
        "checkpoint_comparison",
        {key: stale for key, stale in staleness.checkpoint_comparison().items() if key not in unsettled},
    )


def work_to_do(
    ready: Iterable[tuple[str, StalePartitions]],
    assets: Sequence[dg.AssetsDefinition],
    instance: dg.DagsterInstance,
    automation: AutomationSettings,
) -> Iterator[Work]:
    """Yield the runs to launch now: nothing of a group that has a run in flight, nothing that failed too often or just now."""
    definitions = {asset.key.to_user_string(): asset for asset in assets}
    busy = {run.tags[GROUP_TAG] for run in instance.get_runs(RunsFilter(statuses=IN_FLIGHT)) if GROUP_TAG in run.tags}
    for name, stale in ready:
        for stretch in stretches(definitions[name], stale, instance, most=MOST_PARTITIONS):
            work = _work(name, stretch, stale)
            if work.group in busy or not _may_try(instance, work, automation):
                continue
            busy.add(work.group)
            yield work


def stretches(
    asset: dg.AssetsDefinition, stale: Collection[str], instance: dg.DagsterInstance, *, most: int = sys.maxsize
) -> Iterator[Sequence[str]]:
    """Cut stale partitions into runs: neighbours of one checkpoint, at most so many, or one where the asset takes no more."""
    definition = asset.partitions_def
    if definition is None:
        raise TypeError(f"{asset.key.to_user_string()} has no partitions")
    if not stale:
        return
    if asset.backfill_policy is None:
        yield from ([key] for key in stale)
        return
    stretch: list[str] = []
    for key in definition.get_partition_keys(dynamic_partitions_store=instance):
        # A range of two dimensions is a rectangle: one that stays within a checkpoint is what it seems.
        if stretch and (key not in stale or len(stretch) == most or _checkpoint(key) != _checkpoint(stretch[-1])):
            yield stretch
            stretch = []
        if key in stale:
            stretch.append(key)
    if stretch:
        yield stretch


def _work(asset: str, stretch: Sequence[str], stale: StalePartitions) -> Work:
    versions: list[tuple[str, Stale]] = [(key, stale[key]) for key in stretch]
    checkpoint = _checkpoint(stretch[0])
    return Work(
        asset=asset,
        group=f"{asset} {checkpoint}".strip(),
        partitions=tuple(stretch),
        version=content_hash([asset, [[key, partition.wanted] for key, partition in versions]]),
    )


def _may_try(instance: dg.DagsterInstance, work: Work, automation: AutomationSettings) -> bool:
    failed = instance.get_run_records(
        RunsFilter(tags={WORK_TAG: work.version}, statuses=[DagsterRunStatus.FAILURE]), limit=automation.max_attempts
    )
    if not failed:
        return True
    wait = automation.backoff_seconds * 2 ** (len(failed) - 1)
    return len(failed) < automation.max_attempts and time.time() - (failed[0].end_time or 0) >= wait


def _checkpoint(key: str) -> str:
    """Return the checkpoint of a two-dimensional partition key, or nothing for a key of one dimension."""
    checkpoint, separator, _ = key.partition("|")
    return checkpoint if separator else ""


def _other(key: str) -> str:
    return key.partition("|")[2]
