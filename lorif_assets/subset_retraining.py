"""Models retrained on random subsets of the training data, and the losses of query sets under them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.subsets import subset_members
from lorif_assets.query_losses import query_set_losses
from lorif_assets.recipe import content_hash
from lorif_assets.retraining import retrained_model, training_recipe
from lorif_assets.settings import Settings
from lorif_assets.subset_names import subset_number, subsets
from lorif_assets.versions import ledger_version
from resources.lake import Lake
from resources.models import Checkpoints
from resources.schemas import QUERY_EXAMPLES, SUBSET_LOSSES, SUBSETS, TRAINING_EXAMPLES

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SubsetRetraining:
    """The models to retrain, one per subset and seed, and what each is computed from."""

    settings: Settings
    lake: Lake

    @property
    def seeds(self) -> Sequence[int]:
        """Training seeds of each subset."""
        first = self.settings.evaluation.seed
        return range(first, first + self.settings.evaluation.seeds)

    @cached_property
    def data_hash(self) -> str:
        """Hash of all shards."""
        return ledger_version(dict(self.lake.read(TRAINING_EXAMPLES, ["shard", "shard_hash"]).unique().iter_rows()))

    @cached_property
    def _example_ids(self) -> Sequence[str]:
        rows = self.lake.read(TRAINING_EXAMPLES, ["shard", "row", "example_id"]).sort("shard", "row")
        return rows["example_id"].to_list()

    def members(self, subset: str) -> list[str]:
        """Return the examples of a subset, in the order of shards and rows.

        Raises:
            MismatchError: there are fewer than two training examples.
        """
        if len(self._example_ids) < 2:
            raise MismatchError("there are fewer than two training examples; materialize `training_examples` first")
        evaluation = self.settings.evaluation
        return subset_members(self._example_ids, evaluation.share, evaluation.seed, subset_number(subset))

    def model_version(self, subset: str, seed: int) -> str:
        """Return the hash of what a retrained model depends on."""
        evaluation = self.settings.evaluation
        return content_hash(
            [self.data_hash, evaluation.share, evaluation.seed, subset, seed, training_recipe(evaluation)]
        )

    @cached_property
    def _query_set_hashes(self) -> Mapping[str, str]:
        return dict(self.lake.read(QUERY_EXAMPLES, ["query_set", "query_set_hash"]).unique().iter_rows())

    def loss_versions(self, subset: str, seed: int, query_sets: Sequence[str]) -> Mapping[str, str]:
        """Return by query set the hash of what its losses under a model depend on."""
        hashes, recipe, model = self._query_set_hashes, self.settings.recipe, self.model_version(subset, seed)
        missing = [name for name in query_sets if name not in hashes]
        if missing:
            raise MismatchError(f"the query set {missing[0]!r} is not in `query_examples`; materialize it there first")
        return {name: content_hash([model, hashes[name], recipe.model_dtype, recipe.max_length]) for name in query_sets}

    def unfinished_seeds(self, subset: str, query_sets: Sequence[str]) -> Sequence[int]:
        """Return the seeds of a subset of which a query set's losses are missing or out of date."""
        stored = self._stored([subset])
        return [
            seed
            for seed in self.seeds
            if any(
                stored.get((subset, seed), {}).get(query_set) != version
                for query_set, version in self.loss_versions(subset, seed, query_sets).items()
            )
        ]

    def version(self, subset: str, query_sets: Sequence[str]) -> str:
        """Return the version of a subset's losses, of all seeds and query sets."""
        return content_hash([self.loss_versions(subset, seed, query_sets) for seed in self.seeds])

    def stored_versions(self, query_sets: Sequence[str]) -> Mapping[str, str]:
        """Return the version of the stored losses of each subset that has any."""
        stored = self._stored(None)
        return {
            subset: content_hash(
                [{name: stored.get((subset, seed), {}).get(name) for name in query_sets} for seed in self.seeds]
            )
            for subset in {subset for subset, _ in stored}
        }

    def _stored(self, names: Sequence[str] | None) -> Mapping[tuple[str, int], Mapping[str, str]]:
        """Return the stored versions by subset and seed, then query set."""
        chosen = {} if names is None else {"subset": list(names)}
        rows = self.lake.read(SUBSET_LOSSES, ["subset", "seed", "query_set", "computed_from"], **chosen).unique()
        found: dict[tuple[str, int], dict[str, str]] = {}
        for subset, seed, query_set, version in rows.iter_rows():
            found.setdefault((subset, int(seed)), {})[query_set] = version
        return found

    def wanted(self, query_set: str) -> Mapping[str, Mapping[int, str]]:
        """Return by subset and seed the version that losses of a query set should have."""
        return {
            subset: {seed: self.loss_versions(subset, seed, [query_set])[query_set] for seed in self.seeds}
            for subset in subsets(self.settings)
        }

    def seconds_per_model(self) -> float | None:
        """Return the median time that a retraining took so far, or None before the first."""
        seconds = self.lake.read(SUBSET_LOSSES, ["subset", "seed", "seconds"]).unique()["seconds"].drop_nulls()
        return None if seconds.is_empty() else float(np.median(seconds.to_numpy()))

    def compute(
        self, subset: str, seed: int, query_sets: Sequence[str], models: Checkpoints, device: "torch.device"
    ) -> pl.DataFrame:
        """Retrain one model, unless a kept one will do, and store and return the losses of all query sets under it."""
        members = self.members(subset)
        self.lake.replace(
            SUBSETS,
            {"subset": subset},
            pl.DataFrame(
                {
                    "subset": [subset],
                    "example_ids": [members],
                    "n_examples": [len(members)],
                    "data_hash": [self.data_hash],
                }
            ).to_arrow(),
        )
        folder = Path(self.settings.resolve(self.settings.evaluation.directory), subset, f"seed-{seed}")
        examples = self.lake.read(TRAINING_EXAMPLES).sort("shard", "row").filter(pl.col("example_id").is_in(members))
        model = retrained_model(
            self.settings.evaluation, examples.to_arrow(), seed, folder, self.model_version(subset, seed)
        )
        losses = query_set_losses(
            self.lake, query_sets, models, model.checkpoint, self.settings.recipe, self.settings.batch.tokens, device
        )
        versions = self.loss_versions(subset, seed, query_sets)
        losses = losses.with_columns(
            subset=pl.lit(subset),
            seed=pl.lit(str(seed)),
            seconds=pl.lit(model.seconds),
            computed_from=pl.col("query_set").replace_strict(versions),
        )
        self.lake.replace(SUBSET_LOSSES, {"subset": subset, "seed": str(seed)}, losses.to_arrow())
        if not self.settings.evaluation.keep_models:
            shutil.rmtree(folder)
        return losses
