"""Ground truth by subsets: the losses of query sets under models that saw only a part of the training data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.data.stored_examples import stored_query_set_hashes
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.retraining.subset_names import subsets
from lorif_assets.lake.evaluation_tables import SUBSET_LOSSES, SUBSETS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup


@dataclass(frozen=True)
class SubsetTruth(ABC):
    """Where the losses of each subset and seed come from, and which of them the lake already holds."""

    settings: Settings
    lake: Lake

    @property
    @abstractmethod
    def seeds(self) -> Sequence[int]:
        """Training seeds of each subset."""

    @abstractmethod
    def members(self, subset: str) -> list[str]:
        """Return the training examples of a subset."""

    @abstractmethod
    def loss_versions(self, subset: str, seed: int, query_sets: Sequence[str]) -> Mapping[str, str]:
        """Return by query set the hash of what its losses under a model depend on."""

    @abstractmethod
    def compute(
        self, subset: str, seed: int, query_sets: Sequence[str], models: Checkpoints, devices: DeviceGroup
    ) -> pl.DataFrame:
        """Store and return the losses of all query sets under one model."""

    def unfinished_seeds(self, subset: str, query_sets: Sequence[str]) -> Sequence[int]:
        """Return the seeds of a subset for which a query set's losses are missing or out of date."""
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

    def expected_versions(self, query_set: str) -> Mapping[str, Mapping[int, str]]:
        """Return by subset and seed the version that losses of a query set should have."""
        return {
            subset: {seed: self.loss_versions(subset, seed, [query_set])[query_set] for seed in self.seeds}
            for subset in subsets(self.settings)
        }

    def seconds_per_model(self) -> float | None:
        """Return the median seconds of a retraining so far, or None before the first."""
        seconds = self.lake.read(SUBSET_LOSSES, ["subset", "seed", "seconds"]).unique()["seconds"].drop_nulls()
        return None if seconds.is_empty() else float(np.median(seconds.to_numpy()))

    def query_set_hashes(self, query_sets: Sequence[str]) -> Mapping[str, str]:
        """Return the hash of each query set.

        Raises:
            MismatchError: one is not in the lake.
        """
        missing = [name for name in query_sets if name not in self._query_set_hashes]
        if missing:
            raise MismatchError(f"the query set {missing[0]!r} is not in `query_examples`; materialize it there first")
        return self._query_set_hashes

    @cached_property
    def _query_set_hashes(self) -> Mapping[str, str]:
        return stored_query_set_hashes(self.lake)

    def _store(self, subset: str, seed: int, members: Sequence[str], losses: pl.DataFrame) -> pl.DataFrame:
        """Store one model's losses (query_set, query_id, loss, n_target_tokens, seconds), and return them as stored."""
        membership = {"subset": [subset], "example_ids": [list(members)], "n_examples": [len(members)]}
        self.lake.replace(SUBSETS, {"subset": subset}, pl.DataFrame(membership).to_arrow())
        versions = self.loss_versions(subset, seed, losses["query_set"].unique().to_list())
        rows = losses.with_columns(
            subset=pl.lit(subset),
            seed=pl.lit(str(seed)),
            computed_from=pl.col("query_set").replace_strict(versions),
        )
        # The losses come last: they are the sign that the model was evaluated.
        self.lake.replace(SUBSET_LOSSES, {"subset": subset, "seed": str(seed)}, rows.to_arrow())
        return rows
