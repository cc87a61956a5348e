"""Which partitions of the evaluation are missing or out of date; it is brought up to date on demand, not by itself."""

from collections.abc import Iterator, Mapping

from lorif_assets.attributed_model import CheckpointRecord, checkpoint_record
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation_figures import stored_figure_versions
from lorif_assets.evaluation_page.version import page_version, stored_page_versions
from lorif_assets.evaluation_queries import evaluated_query_sets
from lorif_assets.ground_truth import ground_truth_version
from lorif_assets.methods.evaluated_scores import method_versions, stored_method_versions
from lorif_assets.recipe import content_hash
from lorif_assets.staleness import Staleness, StalePartitions, differing
from lorif_assets.subset_retraining import SubsetRetraining
from lorif_assets.versions import datamodeling_version

_WHY = "the scores, the ground truth or the settings changed"


class EvaluationStaleness(Staleness):
    """The staleness of the assets that attribute, and of those that evaluate the newest active checkpoint."""

    def subset_losses(self) -> StalePartitions:
        """Subsets of which a retrained model or a query set's losses under it are missing or out of date."""
        if not self.found.subsets:
            return {}
        retraining = SubsetRetraining(self.settings, self.lake)
        query_sets = evaluated_query_sets(self.settings, self.lake)
        return differing(
            {subset: retraining.version(subset, query_sets) for subset in self.found.subsets},
            retraining.stored_versions(query_sets),
            "the data, the queries or the training recipe changed",
        )

    def method_scores(self) -> StalePartitions:
        """Query sets of which a method's scores are missing or come from other data, weights or recipe."""
        wanted, stored = {}, {}
        for key, versions in self._method_versions():
            wanted[key] = content_hash(list(versions.values()))
            found = stored_method_versions(self.lake, *key.split("|"))
            if found:
                stored[key] = content_hash([found.get(method) for method in versions])
        return differing(wanted, stored, _WHY)

    def linear_datamodeling_score(self) -> StalePartitions:
        """Query sets whose linear datamodeling scores come from other scores or from fewer retrained models."""
        if not self.found.subsets:
            return {}
        retraining = SubsetRetraining(self.settings, self.lake)
        wanted = {
            key: datamodeling_version(
                self.settings.evaluation,
                content_hash([list(versions.values())]),
                ground_truth_version(self.lake, query_set, retraining.wanted(query_set)),
            )
            for key, versions in self._method_versions()
            if (query_set := key.partition("|")[2])
        }
        return differing(wanted, stored_figure_versions(self.lake, "linear_datamodeling_score"), _WHY)

    def evaluation_report(self) -> StalePartitions:
        """Query sets whose page shows other figures, costs, losses or recipes than are stored."""
        record = self._evaluated()
        if not record:
            return {}
        wanted = {
            f"{record.name}|{query_set}": version
            for query_set in evaluated_query_sets(self.settings, self.lake)
            if (version := page_version(self.lake, record.name, query_set))
        }
        return differing(wanted, stored_page_versions(self.lake), "what it shows changed")

    def _evaluated(self) -> CheckpointRecord | None:
        """Return the newest active checkpoint, which retraining from scratch stands for."""
        try:
            return checkpoint_record(self.lake, self.active_checkpoints[-1], self.settings.recipe)
        except (IndexError, MismatchError):
            return None

    def _method_versions(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        record = self._evaluated()
        if record:
            for query_set in evaluated_query_sets(self.settings, self.lake):
                yield f"{record.name}|{query_set}", method_versions(self.settings, self.lake, record, query_set)
