"""Methods that hold the dense gradients of a group of layers in memory: the paper's form of LoRIF, and LoGRA."""

import time

from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.config.recipe import TOKEN_FIELDS, Recipe
from lorif_assets.evaluation.methods.dense_gradients import refuse_large_layers
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.progress import Progress

LOGRA_DAMPING = 0.1
"""Of LoGRA's mean eigenvalue, as published."""
_BF16_BYTES, _FP32_BYTES = 2, 4
_REMEDY = (
    "lower `recipe.max_width` or raise `recipe.projection_factor`, or take lorif_paper and dense_logra out of "
    "`evaluation.methods`"
)


def paper_recipe(recipe: Recipe) -> Recipe:
    """Return the paper's form (arXiv 2601.21929) at a recipe's projections: rank 1, BF16, truncated, its damping rule."""
    inputs = recipe.model_dump(include={"model_dtype", *TOKEN_FIELDS})
    return Recipe(preset="paper", **inputs).projected(recipe.projection)


def paper_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by the paper's form, at its layers: those of the blocks.

    Raises:
        SettingsError: the gradients of one layer would not fit in memory.
    """
    from lorif_assets.evaluation.methods.recipe_trials import COPIES, try_recipes

    recipe, examples = paper_recipe(inputs.attributed.fitted_recipe), inputs.examples.tokenized
    paper = inputs.attributed.under(recipe)
    refuse_large_layers(paper, len(examples), COPIES, _REMEDY)
    with Progress("the paper's form", len(paper.record.layer_shapes), "layers") as progress:
        (outcome,) = try_recipes(
            paper, [recipe], examples, inputs.queries.tokenized, inputs.settings.batch, progress
        ).outcomes
    shared = curvature_of(recipe).cost(list(paper.record.layer_shapes.values())).stored_bytes
    return {
        "lorif_paper": MethodScores(
            outcome.scores.numpy(), float(outcome.bytes_per_example), None, outcome.seconds, shared
        )
    }


def logra_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by the exact inverse, at LoRIF's own layers and projections.

    Raises:
        SettingsError: the gradients of one layer would not fit in memory.
    """
    from lorif_assets.evaluation.methods.recipe_trials import COPIES, dense_inverse_scores

    attributed, examples = inputs.attributed, inputs.examples.tokenized
    refuse_large_layers(attributed, len(examples), COPIES, _REMEDY)
    shapes = attributed.record.layer_shapes
    started = time.monotonic()
    with Progress("dense LoGRA", len(shapes), "layers") as progress:
        scores = dense_inverse_scores(
            attributed, examples, inputs.queries.tokenized, LOGRA_DAMPING, inputs.settings.batch, progress
        )
    widths = [d1 * d2 for d1, d2 in shapes.values()]
    stored, shared = float(sum(widths) * _BF16_BYTES), sum(width * width for width in widths) * _FP32_BYTES
    return {"dense_logra": MethodScores(scores.numpy(), stored, None, time.monotonic() - started, shared)}
