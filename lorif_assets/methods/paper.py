"""LoRIF in the form of the paper, whatever the recipe of the project is: what a recipe of one's own must beat."""

import logging

from lorif_assets.errors import SettingsError
from lorif_assets.methods.inputs import MethodInputs, MethodScores
from lorif_assets.progress import Progress
from lorif_assets.recipe import Recipe

_MOST_LAYER_BYTES = 8 << 30
_R = 256


def paper_recipe(own: Recipe) -> Recipe:
    """Return the paper's form (arXiv 2601.21929) at a recipe's projections: rank 1, BF16, truncated, its damping rule."""
    return Recipe(
        projection_factor=own.projection_factor,
        seed=own.seed,
        model_dtype=own.model_dtype,
        max_length=own.max_length,
        rank=1,
        factor_dtype="bf16",
        curvature="svd",
        r=_R,
        refinements=1,
        damping_rule="leading",
        damping=0.1,
        curvature_form="truncated",
    )


def paper_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by the paper's form, with dense gradients of one group of layers in memory at a time.

    Raises:
        SettingsError: the gradients of one layer would not fit into memory.
    """
    from lorif_assets.tuning.trials import try_recipes

    recipe, examples = paper_recipe(inputs.settings.recipe), inputs.examples.tokenized
    shapes = inputs.attributed.under(recipe).record.layer_shapes
    largest = 4 * len(examples) * max(d1 * d2 for d1, d2 in shapes.values())
    if largest > _MOST_LAYER_BYTES:
        raise SettingsError(
            f"the gradients of one layer of {len(examples):,} examples take {largest / 2**30:.0f} GiB; raise "
            "`recipe.projection_factor`, or take lorif_paper out of `evaluation.methods`"
        )
    with Progress(logging.getLogger(__name__), "the paper's form", len(shapes), "layers") as progress:
        found = try_recipes(
            inputs.attributed, [recipe], examples, inputs.queries.tokenized, inputs.settings.batch, progress
        )
    (tried,) = found.tried
    return {"lorif_paper": MethodScores(tried.scores.numpy(), float(tried.bytes_per_example), None, tried.seconds)}
