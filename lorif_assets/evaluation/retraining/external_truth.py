"""Ground truth computed elsewhere: which examples each subset has, and the losses after training on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import polars as pl

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.errors import SourceError
from lorif_assets.evaluation.retraining.subset_names import LOSSES_FILE, MEMBERS_FILE
from lorif_assets.evaluation.retraining.subset_retraining import SubsetRetraining
from lorif_assets.evaluation.retraining.subset_truth import SubsetTruth
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup


def subset_truth(settings: Settings, lake: Lake) -> SubsetTruth:
    """Return the source of ground truth that the settings name."""
    source = ExternalTruth if settings.evaluation.ground_truth else SubsetRetraining
    return source(settings, lake)


@dataclass(frozen=True)
class ExternalTruth(SubsetTruth):
    """Subsets and losses from the files that the setting `evaluation.ground_truth` names."""

    @property
    def seeds(self) -> Sequence[int]:
        """Training seeds in the files."""
        return sorted(int(seed) for seed in self._losses["seed"].unique())

    def members(self, subset: str) -> list[str]:
        """Return the training examples of a subset."""
        return (
            self._read(MEMBERS_FILE, ("subset", "example_id"))
            .filter(pl.col("subset") == subset)["example_id"]
            .to_list()
        )

    def loss_versions(self, subset: str, seed: int, query_sets: Sequence[str]) -> Mapping[str, str]:
        """Return by query set the hash of the files and of the queries."""
        hashes = self.query_set_hashes(query_sets)
        return {name: content_hash([self._files_hash, subset, seed, hashes[name]]) for name in query_sets}

    def compute(
        self, subset: str, seed: int, query_sets: Sequence[str], models: Checkpoints, devices: DeviceGroup
    ) -> pl.DataFrame:
        """Store and return the losses of a subset and seed; nothing is trained.

        Raises:
            SourceError: the files have no losses of them for a query set.
        """
        del models, devices
        rows = self._losses.filter(pl.col("subset") == subset, pl.col("seed") == str(seed))
        rows = rows.filter(pl.col("query_set").is_in(query_sets))
        missing = sorted(set(query_sets) - set(rows["query_set"].to_list()))
        if missing:
            raise SourceError(
                f"{self._folder / LOSSES_FILE} has no losses of {subset!r}, seed {seed}, for the query set {missing[0]!r}"
            )
        found = rows.select("query_set", "query_id", pl.col("loss").cast(pl.Float32)).with_columns(
            n_target_tokens=pl.lit(None, dtype=pl.Int32),
            seconds=pl.lit(None, dtype=pl.Float64),
            trainer_hash=pl.lit(None, dtype=pl.String),
        )
        return self._store(subset, seed, self.members(subset), found)

    @property
    def _folder(self) -> Path:
        return Path(self.settings.resolve(str(self.settings.evaluation.ground_truth)))

    @cached_property
    def _losses(self) -> pl.DataFrame:
        columns = ("subset", "seed", "query_set", "query_id", "loss")
        return self._read(LOSSES_FILE, columns).with_columns(pl.col("subset", "seed").cast(pl.String))

    @cached_property
    def _files_hash(self) -> str:
        digest = blake2b(digest_size=16)
        for name in (MEMBERS_FILE, LOSSES_FILE):
            digest.update((self._folder / name).read_bytes())
        return digest.hexdigest()

    def _read(self, name: str, columns: Sequence[str]) -> pl.DataFrame:
        file = self._folder / name
        try:
            return pl.read_parquet(file, columns=list(columns))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise SourceError(
                f"the ground truth {file} cannot be read: {error}; expected a Parquet file with the columns "
                f"{', '.join(columns)}"
            ) from error
