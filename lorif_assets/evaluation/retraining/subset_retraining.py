"""Models retrained on random subsets of the training data, and the losses of query sets under them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from lorif_assets.attribution.stored.versions import ledger_version
from lorif_assets.config.content_hash import content_hash
from lorif_assets.data.stored_examples import stored_shard_hashes
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.example_ids import require_unique_ids
from lorif_assets.evaluation.retraining.query_losses import query_set_losses
from lorif_assets.evaluation.retraining.subset_names import subset_number
from lorif_assets.evaluation.retraining.subset_truth import SubsetTruth
from lorif_assets.evaluation.retraining.training_recipe import retrained_model, training_recipe
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.mathematics.evaluation.subsets import subset_members
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup


@dataclass(frozen=True)
class SubsetRetraining(SubsetTruth):
    """Models that are retrained here, one per subset and seed, with the training recipe of the settings."""

    @property
    def seeds(self) -> Sequence[int]:
        """Training seeds of each subset."""
        first = self.settings.evaluation.seed
        return range(first, first + self.settings.evaluation.seeds)

    @cached_property
    def _data_hash(self) -> str:
        """Hash of all shards."""
        return ledger_version(stored_shard_hashes(self.lake))

    @cached_property
    def _example_ids(self) -> Sequence[str]:
        rows = self.lake.read(TRAINING_EXAMPLES, ["shard", "row", "example_id"]).sort("shard", "row")
        require_unique_ids(rows)
        return rows["example_id"].to_list()

    def members(self, subset: str) -> list[str]:
        """Return the examples of a subset, in the order of shards and rows.

        Raises:
            MismatchError: there are fewer than two training examples, or two have one id.
        """
        if len(self._example_ids) < 2:
            raise MismatchError("there are fewer than two training examples; materialize `training_examples` first")
        evaluation = self.settings.evaluation
        return subset_members(self._example_ids, evaluation.share, evaluation.seed, subset_number(subset))

    def model_version(self, subset: str, seed: int) -> str:
        """Return the hash of what a retrained model depends on."""
        evaluation = self.settings.evaluation
        return content_hash(
            [self._data_hash, evaluation.share, evaluation.seed, subset, seed, training_recipe(evaluation)]
        )

    def loss_versions(self, subset: str, seed: int, query_sets: Sequence[str]) -> Mapping[str, str]:
        """Return by query set the hash of what its losses under a model depend on."""
        hashes, recipe = self.query_set_hashes(query_sets), self.settings.recipe
        model = self.model_version(subset, seed)
        how = [recipe.model_dtype, recipe.query_tokens_version]
        return {name: content_hash([model, hashes[name], *how]) for name in query_sets}

    def compute(
        self, subset: str, seed: int, query_sets: Sequence[str], models: Checkpoints, devices: DeviceGroup
    ) -> pl.DataFrame:
        """Retrain one model, unless it was kept, and store and return the losses of all query sets under it."""
        members = self.members(subset)
        folder = Path(self.settings.resolve(self.settings.evaluation.directory), subset, f"seed-{seed}")
        examples = self.lake.read(TRAINING_EXAMPLES).sort("shard", "row").filter(pl.col("example_id").is_in(members))
        model = retrained_model(
            self.settings.evaluation, examples.to_arrow(), seed, folder, self.model_version(subset, seed)
        )
        losses = query_set_losses(
            self.lake, query_sets, models, model.checkpoint, self.settings.recipe, self.settings.batch.tokens, devices
        )
        about = {"seconds": pl.lit(model.seconds), "trainer_hash": pl.lit(model.trainer_hash, dtype=pl.String)}
        losses = self._store(subset, seed, members, losses.with_columns(**about))
        if not self.settings.evaluation.keep_models:
            shutil.rmtree(folder)
        return losses
