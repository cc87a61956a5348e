"""What an asset's function works with: the partitions of one run, the opened project, and the records of what it did.

Dagster gives all partitions of a single-run backfill one data version, and records them only when the step ends: a
killed run would lose what it had finished, and staleness would be wrong. A run of many partitions therefore logs a
materialization per partition, and ends with an output that records nothing, without which Dagster would skip the asset's
checks; a run of one partition returns it in the usual way.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    NULL_EVENT_POINTER,
)
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from lorif_assets.assets.partitions import CHECKPOINT, add_partitions, dimensions
from lorif_assets.attribution.checkpoints.checkpoint import QueriedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.checkpoints.distributed import DistributedCheckpoint
from lorif_assets.attribution.checkpoints.opened import CheckpointOpening
from lorif_assets.compute.shard_work import Opening, State, Workers
from lorif_assets.config.settings import Settings
from lorif_assets.errors import LorifError, TooManyRejectedError
from lorif_assets.lake.damage import notes
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.tables import TABLES
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.pages.tracked_facts import checkpoint_facts, materialization_note
from lorif_assets.progress import Progress, count_partition
from lorif_assets.tracking.run_tree import DAGSTER_TAG, NOTE_TAG
from lorif_assets.tracking.tracked_run import TrackedRun
from resources import opened_project

_LISTED_FAILURES = 10
# MLflow's limit for the value of a tag is not far above.
_LONGEST_TAG = 4_000


class PartitionRun:
    """The run of one asset for some of its partitions."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._many = context.has_partition_key_range
        # Taken before anything is read: an upstream change during the step then shows as staleness.
        self._provenance = _provenance_tags(context) if self._many else {}
        self.project = opened_project(context.resources)
        self.partitions: Sequence[str] = context.partition_keys
        self.log = context.log
        self._tracked_at: dict[str, str] = {}

    @property
    def settings(self) -> Settings:
        """The project's settings."""
        return self.project.settings

    @property
    def lake(self) -> Lake:
        """The project's lake."""
        return self.project.lake

    @property
    def checkpoints(self) -> Checkpoints:
        """Where the project's checkpoints are."""
        return self.project.checkpoints

    @property
    def provenance(self) -> Mapping[str, str]:
        """What a page says of the run that made it."""
        run_id = self._context.run_id
        return {"dagster run": run_id, "in Dagster": f"{self.settings.addresses.dagster}/runs/{run_id}"}

    def by_checkpoint(self) -> Mapping[str, Mapping[str, str]]:
        """Return the two-dimensional partitions as checkpoint -> {name in the other dimension: partition key}."""
        grouped: dict[str, dict[str, str]] = {}
        for key in self.partitions:
            if not isinstance(key, dg.MultiPartitionKey):
                raise TypeError(f"expected a partition of a checkpoint and another dimension, found {key!r}")
            names = dict(key.keys_by_dimension)
            checkpoint = names.pop(CHECKPOINT)
            (name,) = names.values()
            grouped.setdefault(checkpoint, {})[name] = key
        return grouped

    def stored(self, checkpoint: str) -> StoredCheckpoint:
        """Return what the lake holds of a checkpoint.

        Raises:
            MismatchError: it is not recorded, or was recorded under other settings.
        """
        return StoredCheckpoint.read(self.lake, checkpoint, self.settings.recipe)

    def discard_damaged(self) -> None:
        """Take what is damaged of the run's partitions out of the tables, so that it is computed as if it were missing.

        The damaged files go too: nothing can use them, and the next verification would name them again.
        """
        asset, definition = self._context.asset_key.to_user_string(), self._context.assets_def.partitions_def
        damage = [one for one in notes(self.lake.stored) if one.asset == asset and one.partition]
        if not damage or definition is None:
            return
        names = dimensions(definition)
        for key in self.partitions:
            partition = dict(zip(names, key.split("|"), strict=True))
            for one in damage:
                if one.covers(asset, partition):
                    self.log.warning(f"{key} is computed again: {one.place} is damaged: {one.file} {one.what}")
                    schema = TABLES[one.table]
                    self.lake.replace(schema, one.partition, schema.columns.empty_table())
                    self.lake.stored.delete(one.file)

    def lease(self) -> AbstractContextManager[DeviceGroup]:
        """Wait for a group of devices, and hold it to the end of the block."""
        return self.project.devices.lease()

    def workers(self, opening: Opening[State]) -> AbstractContextManager[Workers[State]]:
        """Have workers to the end of the block, on this machine's devices or in a cluster, as the settings say."""
        return self.project.engine.workers(opening, self.log)

    @contextmanager
    def queried(self, stored: StoredCheckpoint) -> Iterator[QueriedCheckpoint]:
        """Have a checkpoint to put queries to: loaded on leased devices, or open on the workers of a cluster.

        Raises:
            MismatchError: the files changed since they were recorded.
            CheckpointError: it cannot be loaded.
        """
        if self.project.compute.engine == "local":
            with self.lease() as group:
                # No name here refers to the model: whoever asks for it may free its memory.
                yield stored.load(self.checkpoints, group)
        else:
            opening = CheckpointOpening(stored, self.checkpoints, self.settings.batch, loads=False)
            with self.workers(opening) as workers:
                yield DistributedCheckpoint(stored, workers)

    def progress(self, label: str, total: int, unit: str) -> Progress:
        """Report the progress of long work to Dagster's log, which also shows that the run is alive."""
        return Progress(label, total, unit, self.log)

    @contextmanager
    def tracked(
        self,
        checkpoint: str,
        partitions: Iterable[str],
        params: Mapping[str, object] | None = None,
        pages: Sequence[tuple[str, str]] = (),
        **tags: str,
    ) -> Iterator[TrackedRun | None]:
        """Open a tracked run for some partitions of a checkpoint; None where nothing is tracked.

        What is committed of these partitions from then on says where MLflow has the run.

        Args:
            checkpoint: name of the checkpoint.
            partitions: what is computed.
            params: settings that it is computed with.
            pages: titles and addresses of pages about it, which MLflow links to.
            tags: more tags, by the part of their name after `lorif.`.
        """
        tracking, keys = self.project.tracking, list(partitions)
        asset = self._context.asset_key.to_user_string()
        identity = {
            DAGSTER_TAG: self._context.run_id,
            "dagster.partition": ", ".join(keys)[:_LONGEST_TAG],
            NOTE_TAG: materialization_note(self.settings, asset, self._context.run_id, pages),
            **{f"lorif.{name}": value for name, value in tags.items()},
        }
        facts = checkpoint_facts(self.project, checkpoint) if tracking.uri else None
        with tracking.materialization(
            checkpoint, asset, identity, params or {}, self.log, facts=facts, partitions=keys
        ) as tracked:
            if tracked and tracked.url:
                self._tracked_at.update(dict.fromkeys(keys, tracked.url))
                self.log.info(f"tracked in MLflow: {tracked.url}")
            yield tracked

    def add_partitions(self, definition: str, names: Sequence[str]) -> None:
        """Add partitions that the run found to Dagster's."""
        add_partitions(self._context.instance, definition, names)

    def end(self) -> Iterator[dg.MaterializeResult[Any]]:
        """Yield the output of a run that logged its materializations itself, for the checks that come after it."""
        if self._many:
            yield dg.MaterializeResult(metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})

    def commit_again(self, partition: str, event: dg.AssetMaterialization) -> Iterator[dg.MaterializeResult[Any]]:
        """Record a partition that is as it was when it was recorded last, so that Dagster goes on with what is made from it."""
        self.log.info(f"{partition} is up to date: nothing is computed")
        version = (event.tags or {}).get(DATA_VERSION_TAG, "")
        yield from self.commit(partition, version, {**event.metadata, "up to date": "nothing was computed"})

    def commit(
        self, partition: str, data_version: str, metadata: Mapping[str, Any]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Record one partition: yields its result where it is the run's only one, else logs its event."""
        count_partition()
        if partition in self._tracked_at:
            metadata = {**metadata, "mlflow_run": dg.MetadataValue.url(self._tracked_at[partition])}
        if not self._many:
            yield dg.MaterializeResult(data_version=dg.DataVersion(data_version), metadata=metadata)
            return
        self._context.log_event(
            dg.AssetMaterialization(
                asset_key=self._context.asset_key,
                partition=partition,
                metadata=metadata,
                tags={
                    **self._provenance,
                    DATA_VERSION_TAG: data_version,
                    DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
                    **_dimension_tags(partition),
                },
            )
        )


@dataclass(frozen=True)
class Failures:
    """Parts of a run that failed while the others went on."""

    log: logging.Logger
    parts: str
    """What they are, in the plural."""
    n_parts: int
    remainder: str
    """What the run goes on with after a failure."""
    _causes: dict[str, Exception] = field(default_factory=dict, init=False)

    def add(self, part: str, cause: Exception) -> None:
        """Log and keep one failure."""
        self.log.error(f"{part} failed; going on with {self.remainder}: {cause}", exc_info=cause)
        self._causes[part] = cause

    def raise_cause_or_all(self) -> None:
        """Raise the cause itself where the run had one part only, else all failures.

        Raises:
            LorifError: something failed.
        """
        if self.n_parts == 1:
            for cause in self._causes.values():
                raise cause
        self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise what failed, once the other parts are done.

        Raises:
            LorifError: something failed; it names the failures, with their causes. Its own cause is that more rows were set
                aside than the settings allow, where they were.
        """
        if not self._causes:
            return
        first, cause = next(iter(self._causes.items()))
        others = "".join(f"\n{part}: {other}" for part, other in list(self._causes.items())[1:_LISTED_FAILURES])
        more = len(self._causes) - _LISTED_FAILURES
        raise LorifError(
            f"{len(self._causes)} of {self.n_parts} {self.parts} failed, the first {first}: {cause}{others}"
            + (f"\nand {more} more" if more > 0 else "")
        ) from next((one for one in self._causes.values() if isinstance(one, TooManyRejectedError)), cause)


def _dimension_tags(partition: str) -> dict[str, str]:
    if not isinstance(partition, dg.MultiPartitionKey):
        return {}
    return {f"dagster/partition/{name}": key for name, key in partition.keys_by_dimension.items()}


def _provenance_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Return the code version, and of each upstream asset the newest event: what Dagster derives staleness from."""
    spec = context.assets_def.specs_by_key[context.asset_key]
    tags = {CODE_VERSION_TAG: spec.code_version or context.run_id}
    upstream = [dep.asset_key for dep in spec.deps]
    records = {record.asset_entry.asset_key: record for record in context.instance.get_asset_records(upstream)}
    for key in upstream:
        record = records.get(key)
        event = record.asset_entry.last_materialization_record if record else None
        found = (event.asset_materialization.tags if event and event.asset_materialization else None) or {}
        # An upstream asset that the recipe has no use for is never materialized; Dagster's words for that.
        pointer = str(event.storage_id) if event else NULL_EVENT_POINTER
        version = found.get(DATA_VERSION_TAG, "UNKNOWN") if event else DEFAULT_DATA_VERSION.value
        tags[f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{key.to_user_string()}"] = pointer
        tags[f"{INPUT_DATA_VERSION_TAG_PREFIX}/{key.to_user_string()}"] = version
    return tags
