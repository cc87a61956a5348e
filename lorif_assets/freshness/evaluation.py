"""Which partitions of the evaluation are missing or out of date; it is brought up to date on demand, not by itself."""

from collections.abc import Iterator, Mapping

from lorif_assets.attribution.model import CheckpointRecord, checkpoint_record
from lorif_assets.attribution.versions import datamodeling_version, source_retrieval_version, tail_patch_version
from lorif_assets.config.recipe import content_hash
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.figures import stored_figure_versions
from lorif_assets.evaluation.known_sources import has_known_sources
from lorif_assets.evaluation.methods.evaluated_scores import method_versions, scores_version, stored_method_versions
from lorif_assets.evaluation.query_sets import evaluated_query_sets
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import ground_truth_version
from lorif_assets.evaluation.retraining.removal import planned_removals, removal_versions, stored_removal_versions
from lorif_assets.freshness.stale import StalePartitions, differing
from lorif_assets.freshness.staleness import Staleness
from lorif_assets.lake.attribution_tables import TRAINING_EXAMPLES
from lorif_assets.pages.evaluation.version import page_version, stored_page_versions

_WHY = "the scores, the ground truth or the settings changed"


class EvaluationStaleness(Staleness):
    """The staleness of the assets that attribute, and of those that evaluate the newest active checkpoint."""

    def subset_losses(self) -> StalePartitions:
        """Subsets of which a retrained model or a query set's losses under it are missing or out of date."""
        if not self.found.subsets:
            return {}
        truth_source = subset_truth(self.settings, self.lake)
        query_sets = evaluated_query_sets(self.settings, self.lake)
        return differing(
            {subset: truth_source.version(subset, query_sets) for subset in self.found.subsets},
            truth_source.stored_versions(query_sets),
            "the data, the queries or the training recipe changed",
        )

    def method_scores(self) -> StalePartitions:
        """Query sets of which a method's scores are missing or come from other data, weights or recipe."""
        wanted, stored = {}, {}
        for key, versions in self._method_versions():
            wanted[key] = scores_version(versions)
            found = stored_method_versions(self.lake, *key.split("|"))
            if found:
                stored[key] = scores_version({method: found.get(method, "") for method in versions})
        return differing(wanted, stored, _WHY)

    def linear_datamodeling_score(self) -> StalePartitions:
        """Query sets whose linear datamodeling scores come from other scores or from fewer retrained models."""
        if not self.found.subsets:
            return {}
        truth_source = subset_truth(self.settings, self.lake)
        wanted = {
            key: datamodeling_version(
                self.settings.evaluation,
                scores_version(versions),
                ground_truth_version(self.lake, query_set, truth_source.wanted(query_set)),
            )
            for key, versions in self._method_versions()
            if (query_set := key.partition("|")[2])
        }
        return differing(wanted, stored_figure_versions(self.lake, "linear_datamodeling_score"), _WHY)

    def tail_patch(self) -> StalePartitions:
        """Query sets whose tail-patch figures come from other scores."""
        wanted = {
            key: tail_patch_version(self.settings.evaluation, scores_version(versions))
            for key, versions in self._method_versions()
        }
        return differing(wanted, stored_figure_versions(self.lake, "tail_patch"), _WHY)

    def source_retrieval(self) -> StalePartitions:
        """Query sets with known sources whose retrieval was measured on other scores."""
        evaluation = self.settings.evaluation
        wanted = {
            key: source_retrieval_version(evaluation, scores_version(versions))
            for key, versions in self._method_versions()
            if has_known_sources(self.lake, evaluation, key.partition("|")[2])
        }
        return differing(wanted, stored_figure_versions(self.lake, "source_retrieval"), _WHY)

    def removal_losses(self) -> StalePartitions:
        """Query sets of the setting `removal_query_sets` of which a retrained model's losses are missing or outdated."""
        wanted, stored = {}, {}
        n_examples = self.lake.read(TRAINING_EXAMPLES, ["example_id"]).height
        for key, versions in self._method_versions():
            checkpoint, _, query_set = key.partition("|")
            if query_set not in self.settings.evaluation.removal_query_sets:
                continue
            removals = planned_removals(self.settings, n_examples)
            versions_now = removal_versions(self.settings, self.lake, query_set, removals, versions)
            wanted[key] = content_hash(versions_now)
            if found := stored_removal_versions(self.lake, checkpoint, query_set):
                stored[key] = content_hash({name: found.get(name) for name in versions_now})
        return differing(wanted, stored, _WHY)

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
                yield (
                    f"{record.name}|{query_set}",
                    method_versions(self.settings, self.lake, self.model_checkpoints, record, query_set),
                )
