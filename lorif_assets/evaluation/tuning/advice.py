"""`lorif tune`: which recipe gives the best scores within a budget of bytes, tried on a sample of the user's data."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float64

from lorif_assets.attribution.factors.sound_examples import unsound_positions
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import MismatchError, SettingsError, UnsoundQueryError
from lorif_assets.evaluation.methods.dense_gradients import refuse_large_layers
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.methods.recipe_trials import COPIES, RecipeOutcome, try_recipes
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import read_ground_truth
from lorif_assets.evaluation.tail_patching import tail_patch_changes
from lorif_assets.evaluation.tuning.candidates import candidates, patterns_with_head
from lorif_assets.lake.evaluation_tables import RECIPE_TRIALS
from lorif_assets.mathematics.evaluation.datamodeling import linear_datamodeling_scores
from lorif_assets.mathematics.evaluation.intervals import Comparison, Estimate, compared_over_queries
from lorif_assets.mathematics.scores.rank_correlation import rank_correlations
from lorif_assets.progress import Progress

LDS, TAIL_PATCH = "lds", "tail_patch"
_DRAWS = 300
_FEWEST_SUBSETS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """A tried recipe's outcome, and its agreement with the dense inverse on every query."""

    outcome: RecipeOutcome
    agreement: Float[np.ndarray, " Q"]


@dataclass(frozen=True)
class Advice:
    """All trials, their quality by query, the measure of it, and the position of the best trial within the budget.

    `quality` names trials by their position; its reference is the best one. The current recipe is at position 0.
    """

    trials: Sequence[Trial]
    measure: str
    quality: Comparison
    best_position: int
    n_examples: int
    complete: bool
    """Whether every candidate was tried before the time ran out."""
    set_aside: Sequence[str]
    """Examples of the sample without a finite loss or gradient, which is the others."""

    def gain(self) -> tuple[float, float, float]:
        """Return how much better the best recipe is than the current one, with a 95 % interval."""
        if self.best_position == 0:
            return 0.0, 0.0, 0.0
        found = self.quality.differences["0"]
        return found.value, found.low, found.high


def advise(inputs: MethodInputs, budget: int, minutes: float, sample_size: int) -> Advice:
    """Try recipes until the time is up, and rank them.

    By LDS if models were retrained on subsets of the data; otherwise by tail-patch on what each recipe retrieves from the
    sample, which needs only the checkpoint.

    Args:
        inputs: the checkpoint, queries and examples.
        budget: bytes per example that the recipe may keep.
        minutes: after these, no further group of recipes is started.
        sample_size: the largest number of examples in the sample.

    Raises:
        MismatchError: no recipe fits the budget.
        SettingsError: the gradients of one layer of the current recipe would not fit in memory.
        UnsoundQueryError: the loss or a gradient of a query is not finite.
    """
    started, current = time.monotonic(), inputs.attributed.fitted_recipe
    step = max(1, -(-len(inputs.examples.tokenized) // sample_size))
    positions = range(0, len(inputs.examples.tokenized), step)
    sample = [inputs.examples.tokenized[at] for at in positions]
    trials: list[Trial] = []
    head_patterns = patterns_with_head(
        inputs.attributed.record.layer_shapes,
        # No adapter's matrices are tracked together with a head.
        None if current.track == "adapter" else inputs.attributed.head,
        current.exclude_layers,
    )
    groups = list(candidates(current, budget, head_patterns))
    sample, set_aside = _sound_sample(inputs, sample, groups)
    done = 0
    for recipes in groups:
        if done and time.monotonic() - started > 60 * minutes:
            break
        label, model = f"recipes at {recipes[0].projection}", inputs.attributed.under(recipes[0])
        try:
            refuse_large_layers(model, len(sample), COPIES, "lower --examples")
        except SettingsError as error:
            # With the first group goes what all others are held against.
            if not done:
                raise
            _log.warning(f"left out, {label}: {error}")
            done += 1
            continue
        total = len(recipes) * len(model.record.layer_shapes)
        with Progress(label, total, "layers") as progress:
            group_outcomes = try_recipes(
                inputs.attributed, recipes, sample, inputs.queries.tokenized, inputs.settings.batch, progress
            )
        dense = group_outcomes.dense_scores.numpy()
        trials += [Trial(one, rank_correlations(one.scores.numpy(), dense)) for one in group_outcomes.outcomes]
        done += 1
    allowed = [at for at, trial in enumerate(trials) if trial.outcome.bytes_per_example <= budget]
    if not allowed:
        raise MismatchError(
            f"none of {len(trials)} recipes keeps {budget} bytes per example or less; the smallest keeps "
            f"{min(trial.outcome.bytes_per_example for trial in trials)}. Raise --bytes"
        )
    measure, compare = _measure(inputs, trials, [example.example_id for example in sample])
    means = {int(name): estimate.value for name, estimate in compare("0").mean.items()}
    best = max(allowed, key=lambda at: means[at])
    return Advice(trials, measure, compare(str(best)), best, len(sample), done == len(groups), set_aside)


def _sound_sample(
    inputs: MethodInputs, sample: Sequence[TokenizedExample], groups: Sequence[Sequence[Recipe]]
) -> tuple[list[TokenizedExample], list[str]]:
    """Return the examples of a sample whose losses and gradients are finite in all layers that are tried, and ids of others.

    Raises:
        UnsoundQueryError: the loss or a gradient of a query is not finite.
    """
    # What is finite depends on the layers, and not on what is kept of their gradients.
    by_layers = {recipes[0].include_layers: inputs.attributed.under(recipes[0]) for recipes in groups}

    def unsound(rows: Sequence[TokenizedExample]) -> set[int]:
        return {at for model in by_layers.values() for at in unsound_positions(model, rows, inputs.settings.batch)}

    queries = inputs.queries.tokenized
    if of_queries := [queries[at].example_id for at in sorted(unsound(queries))]:
        raise UnsoundQueryError(
            f"the loss or a gradient of query {of_queries[0]!r} is not finite at checkpoint "
            f"{inputs.attributed.record.name!r} ({len(of_queries)} such), so no recipe can be judged by it; take it out of its "
            "file, or the set out of `evaluation`",
            of_queries,
        )
    positions = unsound(sample)
    set_aside = [sample[at].example_id for at in sorted(positions)]
    if set_aside:
        _log.warning("set aside, as the loss or a gradient is not finite: %s", ", ".join(set_aside))
    return [example for at, example in enumerate(sample) if at not in positions], set_aside


def pareto(trials: Sequence[Trial], quality: Mapping[str, Estimate]) -> list[int]:
    """Return the trials that no other beats in both bytes and quality, the smallest first."""
    order = sorted(range(len(trials)), key=lambda at: (trials[at].outcome.bytes_per_example, -quality[str(at)].value))
    front: list[int] = []
    for at in order:
        if not front or quality[str(at)].value > quality[str(front[-1])].value:
            front.append(at)
    return front


def store_trials(inputs: MethodInputs, advice: Advice) -> None:
    """Store what was tried in the table of recipe trials, for each query set."""
    checkpoint, first = inputs.attributed.record.name, 0
    for query_set, queries in inputs.query_sets.items():
        rows = slice(first, first + len(queries.ids))
        first += len(queries.ids)
        of_set = {name: values[rows] for name, values in advice.quality.per_query.items()}
        means = compared_over_queries(of_set, advice.quality.reference, _DRAWS).mean
        table = [
            {
                "checkpoint": checkpoint,
                "query_set": query_set,
                "recipe": trial.outcome.recipe.model_dump_json(),
                "curvature": trial.outcome.recipe.curvature,
                "projection_factor": trial.outcome.recipe.projection.factor,
                "rank": trial.outcome.recipe.uniform_rank,
                "r": trial.outcome.recipe.r if "r" in trial.outcome.recipe.fields_in_use else None,
                "damping": trial.outcome.recipe.applied_damping,
                "curvature_form": trial.outcome.recipe.curvature_form,
                "factor_dtype": trial.outcome.recipe.factor_dtype,
                "bytes_per_example": trial.outcome.bytes_per_example,
                "n_examples": advice.n_examples,
                **_figures(advice.measure, means[str(at)]),
                "agreement": float(trial.agreement[rows].mean()),
                "seconds": trial.outcome.seconds,
                "computed_from": content_hash([inputs.attributed.record.weights_hash, query_set, advice.n_examples]),
            }
            for at, trial in enumerate(advice.trials)
        ]
        inputs.lake.replace(
            RECIPE_TRIALS,
            {"checkpoint": checkpoint, "query_set": query_set},
            pa.Table.from_pylist(table, schema=RECIPE_TRIALS.columns),
        )


def _figures(measure: str, quality: Estimate) -> dict[str, float | None]:
    if measure == LDS:
        return {"lds": quality.value, "lds_low": quality.low, "lds_high": quality.high, "tail_patch": None}
    return {"lds": None, "lds_low": None, "lds_high": None, "tail_patch": quality.value}


def _measure(
    inputs: MethodInputs, trials: Sequence[Trial], example_ids: Sequence[str]
) -> tuple[str, Callable[[str], Comparison]]:
    """Return the measure that trials are judged by, and a function that compares them with a reference."""
    scores = {str(at): trial.outcome.scores.numpy() for at, trial in enumerate(trials)}
    truth = _pooled_truth(inputs, example_ids)
    if truth:
        members, losses = truth
        return LDS, lambda reference: linear_datamodeling_scores(scores, members, losses, reference, _DRAWS)
    k = inputs.settings.evaluation.tail_patch_k
    first = {name: np.argsort(-matrix, axis=1, kind="stable")[:, :k] for name, matrix in scores.items()}
    retrieved = {name: [[example_ids[at] for at in row] for row in rows] for name, rows in first.items()}
    changes = tail_patch_changes(inputs, retrieved)
    return TAIL_PATCH, lambda reference: compared_over_queries(changes, reference, _DRAWS)


def _pooled_truth(
    inputs: MethodInputs, example_ids: Sequence[str]
) -> tuple[Bool[np.ndarray, "M N"], Float64[np.ndarray, "Q M"]] | None:
    """Return members and losses of the subsets that every query set has losses for; None if there are too few."""
    source = subset_truth(inputs.settings, inputs.lake)
    try:
        truths = [
            read_ground_truth(inputs.lake, query_set, source.expected_versions(query_set), queries.ids, example_ids)
            for query_set, queries in inputs.query_sets.items()
        ]
    except (MismatchError, SettingsError):
        return None
    common = sorted(set.intersection(*(set(truth.subsets) for truth in truths)))
    if len(common) < _FEWEST_SUBSETS:
        return None
    places = [[list(truth.subsets).index(name) for name in common] for truth in truths]
    losses = [truth.losses[:, place] for truth, place in zip(truths, places, strict=True)]
    return truths[0].members[places[0]], np.concatenate(losses)
