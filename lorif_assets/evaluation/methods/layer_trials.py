"""One layer's scores under different recipes, from dense projected gradients in memory.

The pipeline's own functions approximate, encode and invert, so that a trial's scores are those that the recipe would
give on the same examples.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.config.recipe import Recipe
from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors, singular_factors
from lorif_assets.mathematics.scores.axis_sizes import for_signs
from lorif_assets.mathematics.scores.scoring import block_scores

_BLOCK = 512


class LayerTrials:
    """A layer's dense gradients [n, d1, d2] of examples and [Q, d1, d2] of queries, and what was computed from them so far."""

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
            recipes: all that scores will be asked for, each with the layer's rank.
            bases: of the layer, fitted with the recipes' whitening damping; needed by recipes that whiten gradients.
        """
        self._examples, self._queries, self._bases = examples, queries, bases
        # Largest rank of recipes that factorise the same matrices in the same way.
        self._largest: dict[_Factorisation, int] = {}
        for recipe, rank in recipes:
            way = _factorisation(recipe)
            self._largest[way] = max(rank, self._largest.get(way, 0))
        self._factors: dict[_Factorisation, GradientFactors] = {}
        self._sums: FisherDiagonal | None = None

    def scores(self, recipe: Recipe, rank: int) -> Float[Tensor, "Q n"]:
        """Return the layer's share of the scores under a recipe."""
        d1, d2 = self._examples.shape[1:]
        leading = self._leading(recipe, rank)
        codec = FactorCodec(recipe.factor_dtype)
        stored = decode(encode(leading, codec), codec, d1, d2)
        kind = curvature_of(recipe)
        part = kind.part(stored, self._sums)
        curvature = kind.empty((d1, d2), self._bases, self._queries.device).add(part)
        for _ in range(kind.refinements):
            curvature = curvature.refined().add(part)
        # Bases of a model in FP64 make them FP64.
        preconditioner = curvature.preconditioner()
        preconditioned_gradients = preconditioner.apply(self._queries.flatten(1))
        if recipe.knows_axis_sizes:
            preconditioned_gradients = for_signs(preconditioner, preconditioned_gradients)
        preconditioned_gradients = preconditioned_gradients.to(self._queries)
        return block_scores({"": preconditioned_gradients}, {"": stored})

    def dense_scores(self, damping: float) -> Float[Tensor, "Q n"]:
        """Return what the exact inverse gives: LoGRA (Choe et al. 2024, arXiv 2405.13954) at the same projections.

        vec(G_q)^T (G^T G + lam I)^-1 vec(G_i), lam = damping x tr / D; by the push-through identity with an n x n system
        in place of a D x D one if that is smaller.
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
        """Return factors of a rank: the leading components of those of the largest rank."""
        way = _factorisation(recipe)
        if way not in self._factors:
            self._factors[way] = self._factorised(way)
        factors = self._factors[way]
        return GradientFactors(factors.u[:, :, :rank].contiguous(), factors.v[:, :, :rank].contiguous())

    def _factorised(self, way: "_Factorisation") -> GradientFactors:
        whitens, rounds = way
        parts, known = [], self._sums
        for block in self._examples.split(_BLOCK):
            gradients = block
            if whitens:
                if self._bases is None:
                    raise ValueError("a recipe that whitens gradients needs the layer's bases")
                rotated = self._bases.rotate(block)
                if known is None:
                    sums = FisherDiagonal.of(rotated)
                    self._sums = self._sums.merge(sums) if self._sums else sums
                gradients = self._bases.in_factor_axes(rotated * self._bases.scale)
            parts.append(singular_factors(low_rank_factors(gradients, self._largest[way], rounds=rounds)))
        return GradientFactors(torch.cat([part.u for part in parts]), torch.cat([part.v for part in parts]))


_Factorisation = tuple[bool, int | None]
"""Whether gradients are whitened, and the rounds in which they are factorised."""


def _factorisation(recipe: Recipe) -> _Factorisation:
    return recipe.whitens, recipe.factor_rounds
