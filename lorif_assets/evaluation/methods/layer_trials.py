"""One layer's scores under different recipes, from dense projected gradients that are held in memory.

What is approximated, stored and inverted is done by the same functions that the pipeline uses, so that a trial's scores
are those that the recipe would give on the same examples.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.config.recipe import Recipe
from lorif_assets.mathematics.curvature.ekfac import EkfacPreconditioner, FisherDiagonal, KfacBases
from lorif_assets.mathematics.curvature.svd import CurvatureState, random_basis
from lorif_assets.mathematics.curvature.svd_preconditioner import (
    LEADING_EXTRA,
    CurvatureForm,
    DampingRule,
    Preconditioner,
)
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors, singular_factors
from lorif_assets.mathematics.scores.scoring import block_scores

_BLOCK = 512


class LayerTrials:
    """A layer's dense gradients [n, d1, d2] of examples and [Q, d1, d2] of queries, and what was made of them so far."""

    def __init__(
        self,
        examples: Float[Tensor, "n d1 d2"],
        queries: Float[Tensor, "Q d1 d2"],
        recipes: Iterable[tuple[Recipe, int]],
        bases: KfacBases | None,
    ) -> None:
        """Take the gradients.

        Args:
            examples: gradients of the examples.
            queries: gradients of the queries.
            recipes: all that will be asked for, each with the layer's rank.
            bases: of the layer, fitted with the recipes' whitening damping; for recipes with EK-FAC.
        """
        self._examples, self._queries, self._bases = examples, queries, bases
        self._largest: dict[str, int] = {}
        for recipe, rank in recipes:
            self._largest[recipe.curvature] = max(rank, self._largest.get(recipe.curvature, 0))
        self._factors: dict[str, GradientFactors] = {}
        self._fisher: FisherDiagonal | None = None

    def scores(self, recipe: Recipe, rank: int) -> Float[Tensor, "Q n"]:
        """Return the layer's share of the scores under a recipe."""
        d1, d2 = self._examples.shape[1:]
        leading = self._leading(recipe, rank)
        codec = FactorCodec(recipe.factor_dtype)
        stored = decode(encode(leading, codec), codec, d1, d2)
        queries = self._queries.flatten(1)
        if recipe.curvature == "ekfac":
            if self._bases is None or self._fisher is None:
                raise ValueError("a recipe with EK-FAC needs the layer's bases")
            ready = EkfacPreconditioner(self._bases, self._fisher, recipe.fisher_damping).apply(queries)
        else:
            basis = random_basis(d1 * d2, recipe.basis_width, recipe.seed).to(queries.device)
            state = CurvatureState.empty(basis).add(stored)
            for _ in range(recipe.refinements):
                state = state.refined().add(stored)
            spectrum = state.spectrum(recipe.r, LEADING_EXTRA)
            ready = Preconditioner.from_spectrum(
                spectrum, DampingRule(recipe.damping_rule), recipe.damping, CurvatureForm(recipe.curvature_form)
            ).apply(queries)
        return block_scores({"": ready}, {"": stored})

    def dense_scores(self, damping: float) -> Float[Tensor, "Q n"]:
        """Return what the exact inverse gives: LoGRA (Choe et al. 2024, arXiv 2405.13954) at the same projections.

        vec(G_q)^T (G^T G + lam I)^-1 vec(G_i), lam = damping x tr / D; by the push-through identity with an n x n system
        in place of a D x D one where that is the smaller.
        """
        examples, queries = self._examples.flatten(1), self._queries.flatten(1)
        n, dimension = examples.shape
        cross = (queries @ examples.mT).double()
        wide = dimension > n
        gram = (examples @ examples.mT if wide else examples.mT @ examples).double()
        trace = gram.diagonal().sum()
        if trace == 0:
            return torch.zeros_like(cross, dtype=torch.float32)
        gram.diagonal().add_(damping * trace / dimension)
        factor = torch.linalg.cholesky(gram)
        if wide:
            return torch.cholesky_solve(cross.mT, factor).mT.float()
        return torch.cholesky_solve(queries.double().mT, factor).mT.float() @ examples.mT

    def _leading(self, recipe: Recipe, rank: int) -> GradientFactors:
        """Return factors of a rank: the leading components of those of the largest rank that is asked for."""
        if recipe.curvature not in self._factors:
            self._factors[recipe.curvature] = self._factorised(recipe.curvature)
        factors = self._factors[recipe.curvature]
        return GradientFactors(factors.u[:, :, :rank].contiguous(), factors.v[:, :, :rank].contiguous())

    def _factorised(self, curvature: str) -> GradientFactors:
        parts = []
        for block in self._examples.split(_BLOCK):
            gradients = block
            if curvature == "ekfac":
                if self._bases is None:
                    raise ValueError("a recipe with EK-FAC needs the layer's bases")
                rotated = self._bases.rotate(block)
                seen = FisherDiagonal.of(rotated)
                self._fisher = self._fisher.merge(seen) if self._fisher else seen
                gradients = rotated * self._bases.scale
            parts.append(singular_factors(low_rank_factors(gradients, self._largest[curvature])))
        return GradientFactors(torch.cat([part.u for part in parts]), torch.cat([part.v for part in parts]))
