"""A project as it is at one look: what is active, what is recorded, and the versions that stored partitions have."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from lorif_assets.attribution.checkpoints.active import active_checkpoints, chosen_names
from lorif_assets.attribution.checkpoints.checkpoint import (
    StoredCheckpoint,
    averaged_checkpoints,
    averaged_names,
    current_score_versions,
)
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord, checkpoint_record
from lorif_assets.config.settings import Settings
from lorif_assets.data.stored_examples import stored_query_set_hashes, stored_shard_hashes
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.freshness.discovery import Discovered, discover
from lorif_assets.freshness.stale import Stale, StalePartitions, stale_partitions
from lorif_assets.freshness.stored_versions import values_by_partition
from lorif_assets.influcoder.stored import encoder_weights
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.project import Project


@dataclass(frozen=True)
class Asked:
    """The checkpoints and query sets that a person asks for, in place of the active ones; none of a kind: the active ones."""

    checkpoints: Sequence[str] = ()
    query_sets: Sequence[str] = ()


ACTIVE = Asked()
"""Nobody asks for anything: what the settings say is active."""


@dataclass(frozen=True)
class Freshness:
    """What decides which partitions of assets are stale; each part is read once, when it is first needed.

    It must not outlive the state that it has read: after a table was written, make a new one. What an asset should be
    computed from is known only once the assets before it are up to date.
    """

    project: Project
    discovered: Discovered
    asked: Asked = ACTIVE

    @classmethod
    def of(cls, project: Project, asked: Asked = ACTIVE) -> Self:
        """Return a project's freshness, after a look at what lies outside.

        Raises:
            SettingsError: there is no source.
            SourceError, CheckpointError: a path of the settings does not exist or holds nothing usable.
        """
        return cls(project, discover(project), asked)

    @property
    def settings(self) -> Settings:
        """The project's settings."""
        return self.project.settings

    @cached_property
    def lake(self) -> Lake:
        """The project's lake, in which damaged partitions are missing."""
        return self.project.lake.without_damaged()

    def explained(self, asset: str, dimensions: Sequence[str], stale: StalePartitions) -> StalePartitions:
        """Return stale partitions of an asset with the damage as the reason of those that are missing for it.

        Args:
            asset: name of the asset.
            dimensions: of its partitions' keys.
            stale: its partitions that are missing or out of date.
        """
        damage = [one for one in self.lake.hidden if one.asset == asset]
        if not damage:
            return stale
        return {
            key: replace(partition, reason=f"damaged: the file {found[0].file} {found[0].what}") if found else partition
            for key, partition in stale.items()
            for found in [[one for one in damage if one.covers(asset, _named(dimensions, key))]]
        }

    @property
    def active_checkpoints(self) -> Sequence[str]:
        """The checkpoints that the settings want attributed; or those asked for, and those that they are averaged with.

        Raises:
            SettingsError: the settings name one that does not exist, or one is asked for that does not, or it is not complete.
        """
        faults = {**self.discovered.looked.same, **self.discovered.looked.faults}
        if not self.asked.checkpoints:
            return active_checkpoints(self.settings.active.checkpoints, self.discovered.checkpoint_files, faults)
        found = self.discovered.checkpoints
        for name in self.asked.checkpoints:
            if name in faults:
                raise SettingsError(f"the checkpoint {name!r} cannot be used: {faults[name]}")
            if name not in found:
                raise SettingsError(f"there is no checkpoint {name!r}; found {', '.join(found) or 'none'}")
        wanted = {*self.asked.checkpoints}
        for name in self.asked.checkpoints:
            wanted.update(averaged_names(self.settings, self.discovered.checkpoint_files, name, found))
        return [name for name in found if name in wanted]

    @property
    def active_query_sets(self) -> Sequence[str]:
        """The query sets that the settings want scored, or those asked for.

        Raises:
            SettingsError: the settings name one that does not exist, or cannot be read, or one is asked for that does not.
        """
        faults = {
            what.removeprefix("query set "): fault
            for what, fault in self.discovered.faults.items()
            if what.startswith("query set ")
        }
        wanted, found = self.settings.active.query_sets, self.discovered.query_sets
        if self.asked.query_sets:
            if unknown := [name for name in self.asked.query_sets if name not in found]:
                raise SettingsError(f"there is no query set {unknown[0]!r}; found {', '.join(found) or 'none'}")
            return [name for name in found if name in self.asked.query_sets]
        return found if wanted == "all" else chosen_names("active.query_sets", wanted, found, faults)

    @cached_property
    def records(self) -> Sequence[CheckpointRecord]:
        """The active checkpoints that are recorded; the others are missing in the asset `checkpoints`, and go no further."""
        return [record for name in self.active_checkpoints if (record := self.record(name))]

    def record(self, checkpoint: str) -> CheckpointRecord | None:
        """Return what is recorded of a checkpoint, or None if nothing is recorded under the recipe of the settings."""
        try:
            return checkpoint_record(self.lake, checkpoint, self.settings.recipe)
        except MismatchError:
            return None

    @cached_property
    def shard_hashes(self) -> Mapping[str, str]:
        """Hash of the stored training examples of each shard."""
        return stored_shard_hashes(self.lake)

    @cached_property
    def query_set_hashes(self) -> Mapping[str, str]:
        """Hash of the stored queries of each active query set."""
        stored = stored_query_set_hashes(self.lake)
        return {name: stored[name] for name in self.active_query_sets if name in stored}

    @cached_property
    def encoders(self) -> Mapping[str, str]:
        """Hash of the weights of Influcoder's encoder, by active checkpoint that has one; none if Influcoder is off."""
        return encoder_weights(self.lake, self.records if self.settings.influcoder.enabled else ())

    @cached_property
    def exact_score_versions(self) -> Mapping[str, str]:
        """By partition, the version of active query sets' scores over all examples, without any encoder."""
        return {
            f"{record.name}|{query_set}": version
            for record in self.records
            for query_set, version in current_score_versions(
                self.settings,
                self.project.checkpoints,
                self._averaged[record.name],
                self.shard_hashes,
                self.query_set_hashes,
            ).items()
        }

    @property
    def averaging_groups(self) -> Mapping[str, Sequence[str]]:
        """By recorded active checkpoint, the checkpoints whose scores are averaged for it; it comes last."""
        return {name: [one.record.name for one in group] for name, group in self._averaged.items()}

    @cached_property
    def _averaged(self) -> Mapping[str, Sequence[StoredCheckpoint]]:
        files = self.discovered.checkpoint_files
        return {
            record.name: averaged_checkpoints(
                self.settings, files, StoredCheckpoint(self.lake, self.settings.recipe, record)
            )
            for record in self.records
        }

    def stored_versions(self, table: TableSchema, *dimensions: str, column: str = "computed_from") -> Mapping[str, str]:
        """Return the versions in a column of a table by partition key, which is made of the columns `dimensions`."""
        return values_by_partition(self.lake, table, *dimensions, column=column)

    def stale_by_checkpoint(
        self,
        versions: Callable[[CheckpointRecord], Mapping[str, str]],
        stored_versions: Callable[[CheckpointRecord], Mapping[str, str] | Iterable[tuple[str, str]]],
        reason: str,
    ) -> StalePartitions:
        """Return the partitions of recorded active checkpoints whose stored version is not the one that they should have.

        Args:
            versions: for a checkpoint, the versions that its partitions should have, by name in their other dimension.
            stored_versions: the same of those in the lake.
            reason: why a partition that is stored is out of date.
        """
        stale: dict[str, Stale] = {}
        for record in self.records:
            of_checkpoint = stale_partitions(versions(record), dict(stored_versions(record)), reason)
            stale |= {f"{record.name}|{name}": partition for name, partition in of_checkpoint.items()}
        return stale


def _named(dimensions: Sequence[str], key: str) -> Mapping[str, str]:
    return dict(zip(dimensions, key.split("|"), strict=True))
