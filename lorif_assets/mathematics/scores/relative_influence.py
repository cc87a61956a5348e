"""Relative influence: an example's score over its own size, so that a loud example does not lead every ranking.

RelatIF (Barshan et al. 2020, arXiv 2003.11630) divides by the root of an example's influence on itself, g^T H^-1 g. Here its
place is taken by the norm of the gradient as it is stored, each layer weighted so that the mean over the training examples is
the same (docs/method.md: relative influence): it costs next to nothing beside a score, and of whitened gradients it is
nearly equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.factors.packed_signs import LayerFactors, PackedSigns
from lorif_assets.mathematics.scores.scoring import Queries, ScoreExtremes, ScoreMoments, block_scores
from lorif_assets.mathematics.scores.self_influence import relative_influence


def squared_sizes(factors: Mapping[str, LayerFactors], weights: Mapping[str, float]) -> Float[Tensor, " n"]:
    """Return the sum over layers of weight times ||u v^T||_F^2 of n examples, as the sum over components of |u_a|^2 |v_a|^2.

    Components are orthogonal before they are encoded. What codes of few bits add between them is their rounding, and to
    leave it out takes d1 + d2 products per component in place of their square's.

    Args:
        factors: per layer the factors of the same n examples.
        weights: of the layers, as their preconditioners say (`norm_weight`).
    """
    return torch.stack([weights[layer] * _squared_size(of_layer) for layer, of_layer in factors.items()]).sum(0)


def _squared_size(factors: LayerFactors) -> Float[Tensor, " n"]:
    if isinstance(factors, PackedSigns):
        return factors.scales.square().sum(1) * (factors.d1 * factors.d2)
    return (factors.u.square().sum(1) * factors.v.square().sum(1)).sum(1)


@dataclass(frozen=True)
class ScoredBlock:
    """The scores of n examples, and the squares of their sizes."""

    scores: Float[Tensor, "Q n"]
    squares: Float[Tensor, " n"]

    @classmethod
    def of(
        cls, queries: Mapping[str, Queries], factors: Mapping[str, LayerFactors], weights: Mapping[str, float]
    ) -> "ScoredBlock":
        """Score examples by their factors."""
        return cls(block_scores(queries, factors), squared_sizes(factors, weights))

    @property
    def relative(self) -> Float[Tensor, "Q n"]:
        """The examples' relative influence."""
        return relative_influence(self.scores, self.squares)


@dataclass(frozen=True)
class Rankings:
    """The running extremes of each query's scores and relative influences, and the moments of its scores.

    `squares` has the squared size of every example of the data in FP32, by position; NaN where it is not scored yet.
    """

    plain: ScoreExtremes
    relative: ScoreExtremes
    moments: ScoreMoments
    squares: Float[Tensor, " N"]

    @classmethod
    def empty(cls, n_queries: int, k: int, n_examples: int) -> "Rankings":
        """Return those of no scores, which keep k extremes on either side."""
        nothing = ScoreExtremes.empty(n_queries, k)
        return cls(nothing, nothing, ScoreMoments.empty(n_queries), torch.full((n_examples,), torch.nan))

    def update(self, block: ScoredBlock, first_position: int) -> "Rankings":
        """Return them with the examples at positions first_position, first_position + 1, ...; `squares` is filled in place."""
        # Where the scores are, so that no block waits for a copy.
        squares = self.squares.to(block.squares.device)
        squares[first_position : first_position + block.scores.shape[1]] = block.squares.float()
        return replace(
            self,
            squares=squares,
            plain=self.plain.update(block.scores, first_position),
            relative=self.relative.update(block.relative, first_position),
            moments=self.moments.update(block.scores),
        )

    def joined(self, later: "Rankings", first_position: int) -> "Rankings":
        """Return them with those of other examples, whose positions are counted from `first_position` on.

        `squares` is filled in place.
        """
        squares = self.squares.to(later.squares.device)
        squares[first_position : first_position + len(later.squares)] = later.squares
        return Rankings(
            plain=self.plain.joined(later.plain, first_position),
            relative=self.relative.joined(later.relative, first_position),
            moments=self.moments.joined(later.moments),
            squares=squares,
        )

    def on_cpu(self) -> "Rankings":
        """Return the same, where numpy can read it."""
        return Rankings(self.plain.on_cpu(), self.relative.on_cpu(), self.moments.on_cpu(), self.squares.cpu())
