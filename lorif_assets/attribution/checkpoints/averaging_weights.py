"""How much each checkpoint counts in an average of scores: by the learning rate of the part of the run that it stands for."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.training.learning_rates import logged_learning_rates

# The weights are part of the scores' version: the last digits of a mean must not be.
_DIGITS = 4


def checkpoint_weights(
    recipe: Recipe, model_checkpoints: Checkpoints, records: Sequence[CheckpointRecord]
) -> tuple[float, ...]:
    """Return the weight of each checkpoint whose scores are averaged, their mean 1.

    Equal ones where the recipe says so, or where the newest checkpoint's trainer does not tell the learning rate. Of the
    segments of one run (SOURCE) it is how long each trains: its learning rates, summed over its steps.

    Args:
        recipe: of the scores.
        model_checkpoints: where the checkpoints are.
        records: of the checkpoints, in order of step; the newest comes last.
    """
    equal = (1.0,) * len(records)
    if recipe.checkpoint_weights == "equal" or len(records) == 1:
        return equal
    rates = logged_learning_rates(model_checkpoints.get(records[-1].name).path)
    steps = [record.step for record in records]
    known = [step for step in steps if step is not None]
    if not rates or len(known) < len(steps):
        return equal
    return weights_by_rate(known, rates, by_steps=recipe.is_source) or equal


def weights_by_rate(
    steps: Sequence[int], rates: Mapping[int, float], *, by_steps: bool = False
) -> tuple[float, ...] | None:
    """Return weights of mean 1 in proportion to the mean learning rate around each step, or None if some have none.

    A checkpoint stands for the steps that are nearer to it than to another one: at its own step the rate may have fallen
    to 0, as it does at a run's end.

    Args:
        steps: of the checkpoints, ascending.
        rates: learning rate by step.
        by_steps: whether the mean is multiplied by the number of steps that the checkpoint stands for, from the run's start
            to the last checkpoint.
    """
    middles = [(before + after) / 2 for before, after in pairwise(steps)]
    means = []
    for low, high in pairwise([-inf, *middles, inf]):
        around = [rate for step, rate in rates.items() if low < step <= high]
        if not around or not sum(around) > 0:
            return None
        lasted = min(high, steps[-1]) - max(low, 0) if by_steps else 1
        means.append(lasted * sum(around) / len(around))
    if not sum(means) > 0:
        return None
    return tuple(round(mean * len(means) / sum(means), _DIGITS) for mean in means)


def averaging_in_words(weights: Mapping[str, float], recipe: Recipe) -> str:
    """Return at which checkpoints scores look, and why, from the weight of each; the one in question comes last."""
    *_, newest = weights
    if len(weights) == 1:
        return f"Scores are those at {newest} alone: {_why_alone(recipe)}"
    if recipe.is_source:
        return (
            f"Scores are summed over the segments of the run at {', '.join(weights)}; a query's gradient at the last one is "
            "carried back through those after each (`recipe.averaged_checkpoints`, `recipe.checkpoint_weights`)"
        )
    named = ", ".join(f"{name} (weight {weight:.2f})" for name, weight in weights.items())
    how = "each divided by its spread, so" if recipe.checkpoint_weights == "scaled" else "so"
    return (
        f"Scores are averaged over {named}, {how} that examples which the last one has learned by heart are seen where they "
        "still had a gradient (`recipe.averaged_checkpoints`, `recipe.checkpoint_weights`)"
    )


def _why_alone(recipe: Recipe) -> str:
    if recipe.averages:
        return "no active checkpoint before it is averaged with it"
    if recipe.averaged_checkpoints == 1:
        return (
            '`recipe.averaged_checkpoints` is 1; with "auto" those of a fine-tune, which may have learned its data by heart, '
            "are averaged with the base model's and an earlier one's"
        )
    if not recipe.averages_fine_tunes:
        return "`recipe.recall` and `recipe.added_data` score at one checkpoint"
    if recipe.track == "adapter":
        return (
            'by `recipe.track = "adapter"` the base model has none of the matrices; there, examples that a fine-tune has '
            "learned by heart still had a gradient"
        )
    return (
        "no base model that it was fine-tuned from is known and active; if there is one, name it in `checkpoints.base_model`: "
        "there, examples that a fine-tune has learned by heart still had a gradient"
    )
