"""An evaluation page's content, assembled from the lake's tables."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.versions import datamodeling_version
from lorif_assets.config.settings import Settings
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.ekfac_agreement import METRIC
from lorif_assets.evaluation.figures import shared_per_example
from lorif_assets.evaluation.known_sources import known_sources
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores, method_versions, read_evaluated_scores
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import GroundTruth, read_ground_truth
from lorif_assets.evaluation.retraining.subset_names import subsets
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.lake.evaluation_tables import (
    EVALUATION_FIGURES,
    METHOD_COSTS,
    RECIPE_TRIALS,
    REMOVAL_LOSSES,
    SELECTION_LOSSES,
)
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.evaluation.content import Cost, EvaluationContent, Missing
from lorif_assets.pages.evaluation.measurements import (
    ground_truth_figures,
    measured,
    recipe_trials,
    removal_measures,
    removal_rises,
    selected,
)
from lorif_assets.pages.evaluation.pictured_scores import retrieval, scatters
from lorif_assets.pages.evaluation.version import page_version
from lorif_assets.project import Project

_LDS = "linear_datamodeling_score"


def assemble(
    project: Project, record: CheckpointRecord, query_set: str, provenance: Mapping[str, str]
) -> EvaluationContent:
    """Return the content of the page of one checkpoint and query set.

    Raises:
        MismatchError: nothing was evaluated.
    """
    settings, lake = project.settings, project.lake
    version = page_version(lake, record.name, query_set)
    if version is None:
        raise MismatchError(
            f"nothing was evaluated at {record.name!r} for the query set {query_set!r}; materialize `method_scores` first"
        )
    partition = {"checkpoint": record.name, "query_set": query_set}
    figures = lake.read(EVALUATION_FIGURES, **partition)
    by_evaluation = {str(name): rows for (name,), rows in figures.group_by("evaluation")}
    datamodeling, tail, sources, removed = (
        by_evaluation.get(name, figures.clear()) for name in (_LDS, "tail_patch", "source_retrieval", "removal_losses")
    )
    queries = lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row")
    costs = lake.read(METHOD_COSTS, **partition)
    stale_results: list[str] = []
    scored = _scores(project, record, query_set, stale_results)
    truth = _losses(lake, settings, query_set, scored, stale_results) if scored else None
    lds, tail_patch = measured(datamodeling, "lds"), measured(tail, "tail_patch")
    if lds and scored and truth and _version(settings, scored, truth) not in datamodeling["computed_from"]:
        stale_results.append(
            "the linear datamodeling scores come from other scores, or other retrained models, than those stored; "
            f"materialize `{_LDS}` again"
        )
    known = known_sources(lake, settings.evaluation, query_set, scored.query_ids, scored.example_ids) if scored else {}
    found = retrieval(sources, scored, known)
    removals = removal_rises(lake.read(REMOVAL_LOSSES, **partition))
    selections = selected(lake.read(SELECTION_LOSSES, **partition), settings.evaluation.bootstrap)
    trials = recipe_trials(lake.read(RECIPE_TRIALS, **partition))
    return EvaluationContent(
        checkpoint=record.name,
        query_set=query_set,
        model_type=record.model_type,
        n_parameters=record.n_parameters,
        step=record.step,
        n_examples=max(costs["n_examples"], default=0),
        n_queries=queries.height,
        lds=lds,
        ground_truth=ground_truth_figures(datamodeling),
        costs={
            row["method"]: Cost(row["bytes_per_example"], row["setup_seconds"], row["query_seconds"], row["shared"])
            for row in costs.with_columns(shared=shared_per_example()).iter_rows(named=True)
        },
        scatters=scatters(lds, scored, truth, queries) if lds and scored and truth else (),
        tail_patch=tail_patch,
        retrieval=found,
        removals=removals,
        selections=selections,
        trials=trials,
        missing=_missing(
            settings,
            lds=lds is not None,
            tail_patch=tail_patch is not None,
            retrieval=found is not None,
            removals=bool(removals),
            selections=bool(selections),
            trials=bool(trials),
        ),
        stale_results=tuple(stale_results),
        created=datetime.now(UTC),
        provenance={
            **provenance,
            "weights": record.weights_hash,
            **dict(sorted(figures.select("evaluation", "computed_from").unique().iter_rows())),
            "page": version,
        },
        version=version,
        agreement=measured(datamodeling, METRIC),
        removal_measures=removal_measures(removed),
    )


def _scores(
    project: Project, record: CheckpointRecord, query_set: str, stale_results: list[str]
) -> EvaluatedScores | None:
    """Return the scores that pictures are drawn from; if they are out of date, add why to `stale_results`."""
    try:
        versions = method_versions(project, record, query_set)
        return read_evaluated_scores(project.lake, record.name, query_set, versions)
    except MismatchError as error:
        stale_results.append(str(error))
        return None


def _losses(
    lake: Lake, settings: Settings, query_set: str, scored: EvaluatedScores, stale_results: list[str]
) -> GroundTruth | None:
    """Return the losses after retraining, in the same way; None if the settings name no way to retrain."""
    if not subsets(settings):
        return None
    versions = subset_truth(settings, lake).expected_versions(query_set)
    try:
        return read_ground_truth(lake, query_set, versions, scored.query_ids, scored.example_ids)
    except MismatchError as error:
        stale_results.append(str(error))
        return None


def _version(settings: Settings, scored: EvaluatedScores, truth: GroundTruth) -> str:
    return datamodeling_version(settings.evaluation, scored.version, truth.version)


def _missing(settings: Settings, **presence: bool) -> Sequence[Missing]:
    """Return the parts that are not on the page, with the way to get them, given by name which parts are."""
    train = (
        "run `lorif evaluate`"
        if subsets(settings)
        else "set `evaluation.trainer`, `evaluation.command` or `evaluation.ground_truth`, then run `lorif evaluate`"
    )
    ways = {
        "lds": Missing("Linear datamodeling score: predictions against retraining", train),
        "tail_patch": Missing("Tail-patch: one training step on a retrieved example", "run `lorif evaluate`"),
        "retrieval": Missing(
            "Retrieval of known sources",
            "name the ids of the training examples that a query comes from in its field `sources`, then run `lorif evaluate`",
        ),
        "removals": Missing("Removal: retraining without the leading examples", train),
        "selections": Missing(
            "Selection: training on the leading examples alone",
            "name the query set in `evaluation.selection_query_sets`, and a way to retrain, then run `lorif evaluate`",
        ),
        "trials": Missing("Quality of other recipes against their bytes, r and damping", "run `lorif tune`"),
    }
    return tuple(ways[name] for name, is_present in presence.items() if not is_present)
