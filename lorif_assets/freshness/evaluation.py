"""Which partitions of the evaluation are missing or out of date; they are brought up to date on demand only."""

from collections.abc import Iterator, Mapping, Sequence

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.versions import (
    datamodeling_version,
    removal_figures_version,
    source_retrieval_version,
    tail_patch_version,
)
from lorif_assets.config.content_hash import content_hash
from lorif_assets.evaluation.figures import stored_figure_versions
from lorif_assets.evaluation.known_sources import has_known_sources
from lorif_assets.evaluation.methods.evaluated_scores import method_versions, scores_version, stored_method_versions
from lorif_assets.evaluation.query_sets import evaluated_query_sets
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import ground_truth_version
from lorif_assets.evaluation.retraining.ranked_data import (
    REMOVAL,
    SELECTION,
    Experiment,
    ranked_data_versions,
    stored_ranked_data_versions,
)
from lorif_assets.freshness.stale import StalePartitions, stale_partitions
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.pages.evaluation.version import page_version, stored_page_versions

_REASON = "the scores, the ground truth or the settings changed"


def stale_subset_losses(freshness: Freshness) -> StalePartitions:
    """Return subsets of which a retrained model or a query set's losses under it are missing or out of date."""
    if not freshness.discovered.subsets:
        return {}
    truth_source = subset_truth(freshness.settings, freshness.lake)
    query_sets = evaluated_query_sets(freshness.settings, freshness.lake)
    return stale_partitions(
        {subset: truth_source.version(subset, query_sets) for subset in freshness.discovered.subsets},
        truth_source.stored_versions(query_sets),
        "the data, the queries or the training recipe changed",
    )


def stale_method_scores(freshness: Freshness) -> StalePartitions:
    """Return query sets of which a method's scores are missing or come from other data, weights or recipe."""
    wanted, stored = {}, {}
    for key, versions in _method_versions(freshness, _evaluated(freshness)):
        wanted[key] = scores_version(versions)
        found = stored_method_versions(freshness.lake, *key.split("|"))
        if found:
            stored[key] = scores_version({method: found.get(method, "") for method in versions})
    return stale_partitions(wanted, stored, _REASON)


def stale_datamodeling_scores(freshness: Freshness) -> StalePartitions:
    """Return query sets whose linear datamodeling scores come from other scores or from fewer retrained models."""
    if not freshness.discovered.subsets:
        return {}
    truth_source = subset_truth(freshness.settings, freshness.lake)
    wanted = {
        key: datamodeling_version(
            freshness.settings.evaluation,
            scores_version(versions),
            ground_truth_version(freshness.lake, query_set, truth_source.expected_versions(query_set)),
        )
        for key, versions in _method_versions(freshness, _retrained(freshness))
        if (query_set := key.partition("|")[2])
    }
    return stale_partitions(wanted, stored_figure_versions(freshness.lake, "linear_datamodeling_score"), _REASON)


def stale_tail_patches(freshness: Freshness) -> StalePartitions:
    """Return query sets whose tail-patch figures come from other scores."""
    wanted = {
        key: tail_patch_version(freshness.settings.evaluation, scores_version(versions))
        for key, versions in _method_versions(freshness, _retrained(freshness))
    }
    return stale_partitions(wanted, stored_figure_versions(freshness.lake, "tail_patch"), _REASON)


def stale_source_retrievals(freshness: Freshness) -> StalePartitions:
    """Return query sets with known sources whose retrieval was measured on other scores."""
    evaluation = freshness.settings.evaluation
    wanted = {
        key: source_retrieval_version(evaluation, scores_version(versions))
        for key, versions in _method_versions(freshness, _evaluated(freshness))
        if has_known_sources(freshness.lake, evaluation, key.partition("|")[2])
    }
    return stale_partitions(wanted, stored_figure_versions(freshness.lake, "source_retrieval"), _REASON)


def stale_removal_losses(freshness: Freshness) -> StalePartitions:
    """Return query sets of `evaluation.removal_query_sets` with losses or figures missing or out of date.

    Where only figures are, nothing is retrained for them.
    """
    found, figures = list(_retraining(freshness, REMOVAL)), stored_figure_versions(freshness.lake, "removal_losses")
    of_figures = {key: removal_figures_version(freshness.settings.evaluation, wanted) for key, wanted, _ in found}
    return stale_partitions(
        {key: content_hash([wanted, of_figures[key]]) for key, wanted, _ in found},
        {
            key: content_hash([{name: stored.get(name) for name in wanted}, figures.get(key)])
            for key, wanted, stored in found
            if stored
        },
        _REASON,
    )


def stale_selection_losses(freshness: Freshness) -> StalePartitions:
    """Return query sets of `evaluation.selection_query_sets` with losses of a retrained model missing or out of date."""
    found = list(_retraining(freshness, SELECTION))
    return stale_partitions(
        {key: content_hash(wanted) for key, wanted, _ in found},
        {key: content_hash({name: stored.get(name) for name in wanted}) for key, wanted, stored in found if stored},
        _REASON,
    )


def models_left(freshness: Freshness, experiment: Experiment) -> int:
    """Return how many models of an experiment are left to train."""
    return sum(
        stored.get(name) != version
        for _, wanted, stored in _retraining(freshness, experiment)
        for name, version in wanted.items()
    )


def _retraining(
    freshness: Freshness, experiment: Experiment
) -> Iterator[tuple[str, Mapping[str, str], Mapping[str, str]]]:
    """Yield partitions with the versions that models should have, and have, by name."""
    settings, lake = freshness.settings, freshness.lake
    planned = experiment.plan(settings.evaluation, lake.read(TRAINING_EXAMPLES, ["example_id"]).height)
    for key, versions in _method_versions(freshness, _retrained(freshness)):
        checkpoint, _, query_set = key.partition("|")
        if query_set in experiment.query_sets(settings.evaluation):
            wanted = ranked_data_versions(settings, lake, query_set, planned, versions)
            yield key, wanted, stored_ranked_data_versions(lake, experiment, checkpoint, query_set)


def stale_evaluation_reports(freshness: Freshness) -> StalePartitions:
    """Return query sets whose page shows other figures, costs, losses or recipes than are stored."""
    wanted = {
        f"{record.name}|{query_set}": version
        for record in _evaluated(freshness)
        for query_set in evaluated_query_sets(freshness.settings, freshness.lake)
        if (version := page_version(freshness.lake, record.name, query_set))
    }
    return stale_partitions(wanted, stored_page_versions(freshness.lake), "what it shows changed")


def _evaluated(freshness: Freshness) -> Sequence[CheckpointRecord]:
    """Return the checkpoints at which sources are looked for."""
    return _retrained(freshness) if freshness.settings.evaluation.checkpoints == "newest" else freshness.records


def _retrained(freshness: Freshness) -> Sequence[CheckpointRecord]:
    """Return the newest active checkpoint, to which models that are retrained correspond; none if it is not recorded."""
    return [record for record in freshness.records if record.name == freshness.active_checkpoints[-1]]


def _method_versions(
    freshness: Freshness, records: Sequence[CheckpointRecord]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    for record in records:
        for query_set in evaluated_query_sets(freshness.settings, freshness.lake):
            yield (
                f"{record.name}|{query_set}",
                method_versions(freshness.project, record, query_set),
            )
