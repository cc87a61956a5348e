"""Trying recipes on a sample of the training examples: scores, bytes and seconds of each, without storing factors."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.fitting.fit_bases import covariances
from lorif_assets.attribution.fitting.layer_ranks import RANK_EXAMPLES, layer_ranks
from lorif_assets.config.recipe import TOKEN_FIELDS, Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample, n_tokens
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.evaluation.methods.dense_gradients import dense_gradients, dense_groups
from lorif_assets.evaluation.methods.layer_trials import LayerTrials
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes
from lorif_assets.progress import Progress

DENSE_DAMPING = 1.0
"""Damping of the dense inverse that recipes are compared with, in multiples of the mean eigenvalue."""
COPIES = 3
"""Of a layer's gradients in memory: as they are, whitened, and what is made of them."""


@dataclass(frozen=True)
class RecipeOutcome:
    """A recipe's scores [Q, n] on the sample, the bytes that it keeps per example, and the seconds it took."""

    recipe: Recipe
    scores: Float[Tensor, "Q n"]
    bytes_per_example: int
    seconds: float


@dataclass(frozen=True)
class ProjectionOutcomes:
    """Outcomes of recipes that share layers and projections, and the dense inverse's scores [Q, n] at these projections."""

    outcomes: Sequence[RecipeOutcome]
    dense_scores: Float[Tensor, "Q n"]


def try_recipes(
    attributed: AttributedModel,
    recipes: Sequence[Recipe],
    examples: Sequence[TokenizedExample],
    queries: Sequence[TokenizedExample],
    batch: BatchSettings,
    progress: Progress,
) -> ProjectionOutcomes:
    """Score the sample under recipes that share layers, projection and whitening.

    A recipe whose byte budget does not pay for one component of every layer is left out.

    Dense gradients of as many layers as fit in 2 GiB are in memory at a time; each such group takes one pass. Progress
    advances by layer and recipe.

    Raises:
        MismatchError: the recipes differ in what gradients depend on, or in how the model and the examples were read.
        LorifError: as for fitting K-FAC bases.
    """
    _refuse_differing_gradients(attributed.recipe, recipes)
    shared = attributed.under(recipes[0])
    shapes, device = shared.record.layer_shapes, shared.device
    bases = _bases(shared, recipes, examples, batch)
    ranks = []
    affordable = []
    for recipe in recipes:
        try:
            ranks.append(_ranks(shared, recipe, examples, bases, batch))
        except SettingsError as error:
            # Too few bytes for one component of every layer: this recipe cannot be tried, the others can.
            progress.log.info(f"left out: {error}")
        else:
            affordable.append(recipe)
    recipes = affordable
    scores = [torch.zeros(len(queries), len(examples)) for _ in recipes]
    dense, seconds = torch.zeros(len(queries), len(examples)), [0.0] * len(recipes)
    for group in dense_groups(shapes, len(examples)):
        gradients, query_gradients = (dense_gradients(shared, group, rows, batch) for rows in (examples, queries))
        for layer in group:
            ranked_recipes = [(recipe, by_layer[layer]) for recipe, by_layer in zip(recipes, ranks, strict=True)]
            trials = LayerTrials(
                gradients.pop(layer).to(device), query_gradients[layer].to(device), ranked_recipes, bases.get(layer)
            )
            dense += trials.dense_scores(DENSE_DAMPING).cpu()
            for index, (recipe, rank) in enumerate(ranked_recipes):
                started = time.monotonic()
                scores[index] += trials.scores(recipe, rank).cpu()
                seconds[index] += time.monotonic() - started
                progress.advance(1)
    kept_bytes = [
        sum(factor_bytes(FactorCodec(recipe.factor_dtype), *shapes[layer], rank) for layer, rank in by_layer.items())
        for recipe, by_layer in zip(recipes, ranks, strict=True)
    ]
    return ProjectionOutcomes(
        [RecipeOutcome(*one) for one in zip(recipes, scores, kept_bytes, seconds, strict=True)],
        dense,
    )


def dense_inverse_scores(
    attributed: AttributedModel,
    examples: Sequence[TokenizedExample],
    queries: Sequence[TokenizedExample],
    damping: float,
    batch: BatchSettings,
    progress: Progress,
) -> Float[Tensor, "Q n"]:
    """Return the scores of the exact inverse at a recipe's layers and projections; advances by layer."""
    total = torch.zeros(len(queries), len(examples))
    for group in dense_groups(attributed.record.layer_shapes, len(examples)):
        gradients, query_gradients = (dense_gradients(attributed, group, rows, batch) for rows in (examples, queries))
        for layer in group:
            trials = LayerTrials(
                gradients.pop(layer).to(attributed.device), query_gradients[layer].to(attributed.device), [], None
            )
            total += trials.dense_scores(damping).cpu()
            progress.advance(1)
    return total


def _refuse_differing_gradients(model_recipe: Recipe, recipes: Sequence[Recipe]) -> None:
    if len({recipe.trial_hash for recipe in recipes}) > 1:
        raise MismatchError(
            "recipes that are tried together share layers, projection, seed, lengths, types and whitening, but those that "
            "were given differ; try each group alone"
        )
    for name in ("model_dtype", *TOKEN_FIELDS):
        found, loaded = getattr(recipes[0], name), getattr(model_recipe, name)
        if found != loaded:
            raise MismatchError(
                f"a recipe to try has {name} = {found}, but the checkpoint and its examples were read with {loaded}; set "
                f"`recipe.{name}` in the settings, then try it"
            )


def _bases(
    attributed: AttributedModel,
    recipes: Sequence[Recipe],
    examples: Sequence[TokenizedExample],
    batch: BatchSettings,
) -> Mapping[str, KfacBases]:
    whitened = [recipe for recipe in recipes if recipe.whitens]
    if not whitened:
        return {}
    sample = examples[: whitened[0].kfac_examples]
    with Progress("K-FAC bases", n_tokens(sample), "tok") as progress:
        found = covariances(attributed.under(whitened[0]), sample, batch, progress, seed=0)
    damping, rank = whitened[0].whitening_damping, whitened[0].whitening_rank
    return {layer: sums.bases(damping, rank) for layer, sums in found.items()}


def _ranks(
    attributed: AttributedModel,
    recipe: Recipe,
    examples: Sequence[TokenizedExample],
    bases: Mapping[str, KfacBases],
    batch: BatchSettings,
) -> Mapping[str, int]:
    if not recipe.whitens:
        return {layer: min(recipe.rank, *shape) for layer, shape in attributed.record.layer_shapes.items()}
    sample = examples[:RANK_EXAMPLES]
    with Progress("ranks by layer", n_tokens(sample), "tok") as progress:
        ranks = layer_ranks(attributed.under(recipe), sample, bases, batch, progress)
    return {layer: found.rank for layer, found in ranks.items()}
