"""Influcoder's third teacher: what models that were retrained on subsets say of the sampled texts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.evaluation.query_sets import active_query_sets
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import (
    FEWEST_SUBSETS,
    current_losses,
    ground_truth_version,
    read_ground_truth,
)
from lorif_assets.evaluation.retraining.subset_truth import SubsetTruth
from lorif_assets.influcoder.sampling import SampledText
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SubsetTeacher:
    """The losses of some query sets under retrained models, and the influences that follow from them."""

    truth: SubsetTruth
    query_sets: Sequence[str]

    @classmethod
    def of(cls, settings: Settings, lake: Lake) -> "SubsetTeacher":
        """Return that of the active query sets that are in the lake."""
        return cls(subset_truth(settings, lake), active_query_sets(settings, lake))

    @property
    def queries(self) -> Collection[tuple[str, str]]:
        """The queries that have losses, by query set and id; only of sets with losses under at least three subsets."""
        return {
            (query_set, name) for query_set, losses in self._losses.items() for name in losses["query_id"].to_list()
        }

    @property
    def version(self) -> str | None:
        """The hash of the subsets and seeds whose losses are up to date; None where no query set has enough of them."""
        if not self._losses:
            return None
        lake = self.truth.lake
        return content_hash(
            {name: ground_truth_version(lake, name, self.truth.expected_versions(name)) for name in self._losses}
        )

    def ranks(self, anchors: Sequence[SampledText], pool: Sequence[SampledText]) -> "torch.Tensor":
        """Return the effects of pool texts on each anchor's loss [a, p] as ranks among the pool, from 0 to 1.

        Args:
            anchors: queries, of those in `queries`.
            pool: training examples.

        Raises:
            MismatchError: an anchor has no losses.
        """
        import torch

        from lorif_assets.mathematics.influcoder.agreement import rank_transformed
        from lorif_assets.mathematics.influcoder.subset_effects import subset_effects

        effects = torch.zeros(len(anchors), len(pool), dtype=torch.float64)
        for query_set in sorted({one.source for one in anchors}):
            at = [index for index, one in enumerate(anchors) if one.source == query_set]
            truth = read_ground_truth(
                self.truth.lake,
                query_set,
                self.truth.expected_versions(query_set),
                [anchors[index].example_id for index in at],
                [one.example_id for one in pool],
            )
            effects[at] = subset_effects(torch.from_numpy(truth.members), torch.from_numpy(truth.losses))
        return rank_transformed(effects)

    @cached_property
    def _losses(self) -> Mapping[str, pl.DataFrame]:
        found = {
            name: current_losses(self.truth.lake, name, self.truth.expected_versions(name)) for name in self.query_sets
        }
        return {name: losses for name, losses in found.items() if losses["subset"].n_unique() >= FEWEST_SUBSETS}
