"""A project as it is at one look: what is active, what is recorded, and the versions that stored partitions have."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from lorif_assets.attribution.checkpoint import StoredCheckpoint, averaged_checkpoints, current_score_versions
from lorif_assets.attribution.model import CheckpointRecord, checkpoint_record
from lorif_assets.config.settings import Settings
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.freshness.discovery import Discovered, discover
from lorif_assets.freshness.stale import Stale, StalePartitions, stale_partitions
from lorif_assets.influcoder.stored import encoder_weights
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.project import Project


@dataclass(frozen=True)
class Freshness:
    """What decides which partitions of assets are stale; each part is read once, when it is first needed.

    It must not outlive the state that it has read: after a table was written, make a new one. What an asset should be
    computed from is known only once the assets before it are up to date.
    """

    project: Project
    discovered: Discovered

    @classmethod
    def of(cls, project: Project) -> Self:
        """Return a project's freshness, after a look at what lies outside.

        Raises:
            SettingsError: there is no source.
            SourceError, CheckpointError: a path of the settings does not exist or holds nothing usable.
        """
        return cls(project, discover(project))

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
        """The checkpoints that the settings want attributed.

        Raises:
            SettingsError: the settings name one that does not exist.
        """
        if self.settings.active.checkpoints == "newest":
            return self.discovered.checkpoints[-1:]
        return _active_names("active.checkpoints", self.settings.active.checkpoints, self.discovered.checkpoints)

    @property
    def active_query_sets(self) -> Sequence[str]:
        """The query sets that the settings want scored.

        Raises:
            SettingsError: the settings name one that does not exist.
        """
        return _active_names("active.query_sets", self.settings.active.query_sets, self.discovered.query_sets)

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
        return self.stored_values(TRAINING_EXAMPLES, "shard", "shard_hash")

    @cached_property
    def query_set_hashes(self) -> Mapping[str, str]:
        """Hash of the stored queries of each active query set."""
        stored = self.stored_values(QUERY_EXAMPLES, "query_set", "query_set_hash")
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
                self._stored_checkpoint(record),
                self.shard_hashes,
                self.query_set_hashes,
            ).items()
        }

    @cached_property
    def averaging_groups(self) -> Mapping[str, Sequence[str]]:
        """By recorded active checkpoint, the checkpoints whose scores are averaged for it; it comes last."""
        return {
            record.name: [
                one.record.name
                for one in averaged_checkpoints(
                    self.settings, self.project.checkpoints, self._stored_checkpoint(record)
                )
            ]
            for record in self.records
        }

    def _stored_checkpoint(self, record: CheckpointRecord) -> StoredCheckpoint:
        return StoredCheckpoint(self.lake, self.settings.recipe, record)

    def stored_values(self, table: TableSchema, key: str, value: str) -> Mapping[str, str]:
        """Return a text column of a table by another one; all rows of a key have one value."""
        return dict(file_constants(self.lake, table, [key, value]).iter_rows())

    def stored_versions(self, table: TableSchema, *dimensions: str) -> Mapping[str, str]:
        """Return `computed_from` of a table by partition key, which is made of the columns `dimensions`."""
        rows = self.lake.read(table, [*dimensions, "computed_from"]).unique()
        return {"|".join(names): version for *names, version in rows.iter_rows()}

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


def _active_names(field: str, setting: str | Sequence[str], discovered: Sequence[str]) -> Sequence[str]:
    if setting == "all":
        return discovered
    unknown = [name for name in setting if name not in discovered]
    if unknown:
        raise SettingsError(
            f"`{field}` names {unknown[0]!r}, which does not exist; found {', '.join(discovered) or 'none'}"
        )
    return [name for name in discovered if name in setting]
