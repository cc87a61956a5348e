"""Which partitions are missing or out of date, and why: what each should be computed from against what the lake holds.

This is decided by level, not by events: it gives the same answer after a missed event, a daemon that was down or a
killed run.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lorif_assets.attribution.checkpoint import StoredCheckpoint, averaged_together, current_score_versions
from lorif_assets.attribution.compared_checkpoints import compared_versions, participants
from lorif_assets.attribution.curvatures import curvature_of
from lorif_assets.attribution.model import CheckpointRecord, checkpoint_record
from lorif_assets.attribution.stored_bases import bases_version
from lorif_assets.attribution.stored_factors import stored_factor_versions
from lorif_assets.attribution.versions import factor_versions, preconditioner_version, recalled_version
from lorif_assets.config.settings import Settings
from lorif_assets.data.query_files import query_source, source_version
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.freshness.discovery import Discovered
from lorif_assets.freshness.influcoder import (
    agreements_out_of_date,
    embeddings_out_of_date,
    encoder_scores_out_of_date,
    encoders_out_of_date,
    recall_curves_out_of_date,
    targets_out_of_date,
)
from lorif_assets.freshness.sources import stale_shards
from lorif_assets.freshness.stale import Stale, StalePartitions, differing
from lorif_assets.influcoder.stored import encoder_weights
from lorif_assets.lake.attribution_tables import (
    CHECKPOINTS,
    EKFAC_PRECONDITIONERS,
    KFAC_BASES,
    QUERY_EXAMPLES,
    QUERY_SUMMARIES,
    REPORTS,
    SVD_PRECONDITIONERS,
    TRAINING_EXAMPLES,
)
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.models.checkpoints import Checkpoints


@dataclass(frozen=True)
class Staleness:
    """Compares the settings and what was discovered with the tables, asset by asset.

    What an asset should be computed from is known only once the assets before it are up to date: ask in the order of
    the graph.
    """

    settings: Settings
    lake: Lake
    model_checkpoints: Checkpoints
    found: Discovered

    @property
    def active_checkpoints(self) -> Sequence[str]:
        """The checkpoints that the settings want attributed.

        Raises:
            SettingsError: the settings name one that is not there.
        """
        if self.settings.active.checkpoints == "newest":
            return self.found.checkpoints[-1:]
        return _chosen("active.checkpoints", self.settings.active.checkpoints, self.found.checkpoints)

    @property
    def active_query_sets(self) -> Sequence[str]:
        """The query sets that the settings want scored.

        Raises:
            SettingsError: the settings name one that is not there.
        """
        return _chosen("active.query_sets", self.settings.active.query_sets, self.found.query_sets)

    def training_examples(self) -> StalePartitions:
        """Shards whose rows in the source changed since they were read."""
        return stale_shards(self.settings, self._stored(TRAINING_EXAMPLES, "shard", "source_version"))

    def query_examples(self) -> StalePartitions:
        """Active query sets whose file was written since it was read."""
        wanted = {
            name: source_version(query_source(self.settings, name), self.settings) for name in self.active_query_sets
        }
        return differing(wanted, self._stored(QUERY_EXAMPLES, "query_set", "source_version"), "its file changed")

    def checkpoints(self) -> StalePartitions:
        """Active checkpoints whose files or tracked layers changed since they were recorded."""
        files = {checkpoint.name: checkpoint for checkpoint in self.model_checkpoints.find()}
        wanted = {name: files[name].version() for name in self.active_checkpoints}
        changed = differing(wanted, self._stored(CHECKPOINTS, "checkpoint", "files_version"), "its files changed")
        recipes = dict.fromkeys(wanted, self.settings.recipe.factor_hash)
        return {
            **differing(recipes, self._stored(CHECKPOINTS, "checkpoint", "recipe_hash"), "the recipe changed"),
            **changed,
        }

    def kfac_bases(self) -> StalePartitions:
        """Layers of active checkpoints without K-FAC bases of this recipe and these weights; new data ask for none."""
        if not self.settings.recipe.whitens:
            return {}
        stale: dict[str, Stale] = {}
        for record in self.records():
            rows = self.lake.read(KFAC_BASES, ["layer", "version"], checkpoint=record.name)
            version = bases_version(self.settings.recipe, record.weights_hash, record.tokenizer_hash)
            stale |= differing(
                {f"{record.name}|{layer}": version for layer in record.layer_shapes},
                {f"{record.name}|{layer}": stored for layer, stored in rows.iter_rows()},
                "the weights or the recipe changed",
            )
        return stale

    def gradient_factors(self) -> StalePartitions:
        """Shards of active checkpoints whose data, weights or factor recipe changed."""
        hashes = self._shard_hashes()
        stale: dict[str, Stale] = {}
        for record in self.records():
            wanted = {
                f"{record.name}|{shard}": version
                for shard, version in factor_versions(self.settings.recipe, record, hashes).items()
            }
            versions = stored_factor_versions(self.lake, record.name)
            stored = {f"{record.name}|{shard}": version for shard, version in versions.items()}
            stale |= differing(wanted, stored, "its data, the weights, the recipe or the bases changed")
        return stale

    def svd_preconditioners(self) -> StalePartitions:
        """Layers of active checkpoints whose state holds other data, or was fitted under another recipe."""
        return self._preconditioners(SVD_PRECONDITIONERS)

    def ekfac_preconditioners(self) -> StalePartitions:
        """Layers of active checkpoints whose sums hold other data, or were taken in other bases or another recipe."""
        return self._preconditioners(EKFAC_PRECONDITIONERS)

    def _preconditioners(self, table: TableSchema) -> StalePartitions:
        if table != curvature_of(self.settings.recipe).table:
            return {}
        stale: dict[str, Stale] = {}
        for record in self.records():
            version = preconditioner_version(self.settings.recipe, record, self._shard_hashes())
            rows = self.lake.read(table, ["layer", "version"], checkpoint=record.name)
            stale |= differing(
                {f"{record.name}|{layer}": version for layer in record.layer_shapes},
                {f"{record.name}|{layer}": stored for layer, stored in rows.iter_rows()},
                "the factors or the recipe changed",
            )
        return stale

    def influence_targets(self) -> StalePartitions:
        """Active checkpoints whose targets come from other settings, weights or texts, or from far fewer data."""
        return targets_out_of_date(self.lake, self.settings, self._influcoder_records())

    def influcoder_encoder(self) -> StalePartitions:
        """Active checkpoints whose encoder was trained otherwise, or on other targets."""
        return encoders_out_of_date(self.lake, self.settings, self._influcoder_records())

    def influence_embeddings(self) -> StalePartitions:
        """Shards of active checkpoints whose data or encoder changed since they were embedded."""
        return embeddings_out_of_date(self.lake, self._influcoder_records(), self._shard_hashes())

    def influcoder_scores(self) -> StalePartitions:
        """Active query sets whose scores come from another encoder, other examples or queries."""
        queries = self._stored(QUERY_EXAMPLES, "query_set", "query_set_hash")
        active = {name: queries[name] for name in self.active_query_sets if name in queries}
        return encoder_scores_out_of_date(
            self.lake, self.settings, self._influcoder_records(), self._shard_hashes(), active
        )

    def influcoder_agreement(self) -> StalePartitions:
        """Active checkpoints whose encoder is not the one that was measured."""
        records = self._influcoder_records() if self.settings.influcoder.evaluation_seeds else ()
        return agreements_out_of_date(self.lake, self.settings, records)

    def recall_curves(self) -> StalePartitions:
        """Active query sets whose exact scores or encoder are not those that were compared."""
        measured = self.settings.influcoder.enabled and self.settings.influcoder.evaluation_seeds
        return recall_curves_out_of_date(self.lake, self._full_scores(), self._influcoder_records()) if measured else {}

    def query_scores(self) -> StalePartitions:
        """Query sets of active checkpoints whose scores come from other factors, curvature, queries or recipe."""
        return differing(
            self._score_versions(), self._stored_pairs(QUERY_SUMMARIES), "the factors, queries or recipe changed"
        )

    def attribution_report(self) -> StalePartitions:
        """Reports that show other scores than those stored."""
        return differing(self._score_versions(), self._stored_pairs(REPORTS), "the scores changed")

    def checkpoint_comparison(self) -> StalePartitions:
        """Active query sets whose stored scores are not those that were compared; of one checkpoint, none need be."""
        stored = compared_versions(self.lake)
        wanted = {
            query_set: compared.version
            for query_set, compared in participants(self.lake, self.active_query_sets, self.settings.recipe).items()
            if compared.neighbours or query_set in stored
        }
        return differing(wanted, stored, "the scores of a checkpoint changed")

    def averaged_with_any(self, checkpoints: Collection[str]) -> set[str]:
        """Return the active checkpoints whose scores are averaged with those of some of these."""
        return {
            record.name
            for record in self.records()
            if any(
                one.record.name in checkpoints
                for one in averaged_together(self.settings, self.model_checkpoints, self._stored_checkpoint(record))
            )
        }

    def records(self) -> Sequence[CheckpointRecord]:
        """Return the recorded active checkpoints; an unrecorded one is missing in `checkpoints` and stops there."""
        records = []
        for name in self.active_checkpoints:
            try:
                records.append(checkpoint_record(self.lake, name, self.settings.recipe))
            except MismatchError:
                continue
        return records

    def _stored_checkpoint(self, record: CheckpointRecord) -> StoredCheckpoint:
        return StoredCheckpoint(self.lake, self.settings.recipe, record)

    def _influcoder_records(self) -> Sequence[CheckpointRecord]:
        return self.records() if self.settings.influcoder.enabled else ()

    def _shard_hashes(self) -> Mapping[str, str]:
        return self._stored(TRAINING_EXAMPLES, "shard", "shard_hash")

    def _score_versions(self) -> Mapping[str, str]:
        if self.settings.recipe.recall == "none":
            return self._full_scores()
        encoders = encoder_weights(self.lake, self._influcoder_records())
        return {
            key: recalled_version(
                version, encoders.get(key.partition("|")[0], ""), self.settings.influcoder.search_hash
            )
            for key, version in self._full_scores().items()
        }

    def _full_scores(self) -> Mapping[str, str]:
        """Return the versions of scores that do not depend on an encoder."""
        hashes, queries = self._shard_hashes(), self._stored(QUERY_EXAMPLES, "query_set", "query_set_hash")
        active = {name: queries[name] for name in self.active_query_sets if name in queries}
        return {
            f"{record.name}|{query_set}": version
            for record in self.records()
            for query_set, version in current_score_versions(
                self.settings, self.model_checkpoints, self._stored_checkpoint(record), hashes, active
            ).items()
        }

    def _stored(self, schema: TableSchema, key: str, value: str) -> Mapping[str, str]:
        return dict(file_constants(self.lake, schema, [key, value]).iter_rows())

    def _stored_pairs(self, schema: TableSchema) -> Mapping[str, str]:
        rows = self.lake.read(schema, ["checkpoint", "query_set", "computed_from"]).unique()
        return {f"{checkpoint}|{query_set}": version for checkpoint, query_set, version in rows.iter_rows()}


def _chosen(field: str, wanted: str | Sequence[str], found: Sequence[str]) -> Sequence[str]:
    if wanted == "all":
        return found
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise SettingsError(f"`{field}` names {unknown[0]!r}, which is not there; found {', '.join(found) or 'none'}")
    return [name for name in found if name in wanted]
