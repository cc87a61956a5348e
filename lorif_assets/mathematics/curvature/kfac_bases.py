"""Kronecker-factored bases of a layer's gradients, and the whitening of gradients in them (docs/method.md: a second curvature).

From the tokens of a sample of examples, x~ = x P_in [d1] and y~ = dy P_out [d2]:

    A = mean of x~ x~^T = Q_A diag(a) Q_A^T,   B = mean of y~ y~^T = Q_B diag(b) Q_B^T
    rotated gradient   R = Q_A^T G Q_B
    whitened gradient  R * s,   s = (a + m mean a)^-1/2 outer (b + m mean b)^-1/2

A wide side can be whitened by its leading k eigenvectors, with one number in place of the other eigenvalues, their mean.
It then keeps the axes of the tokens, W = t I + Q_k (diag(s_k) - t I) Q_k^T, at 2 k products for each of a token's numbers
in place of d.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.gradients.projection import LayerProjection, projected
from lorif_assets.mathematics.matrix_products import product, product_from_left


@dataclass(frozen=True)
class KfacCovariances:
    """Sums over tokens of x~ x~^T [d1, d1] and y~ y~^T [d2, d2], and the number of tokens. Disjoint data add."""

    inputs: Float[Tensor, "d1 d1"]
    outputs: Float[Tensor, "d2 d2"]
    tokens: int

    @classmethod
    def empty(cls, d1: int, d2: int, device: torch.device) -> "KfacCovariances":
        """Return the covariances of no data."""
        return cls(torch.zeros(d1, d1, device=device), torch.zeros(d2, d2, device=device), 0)

    def to(self, device: torch.device) -> "KfacCovariances":
        """Return the covariances on a device."""
        return replace(self, inputs=self.inputs.to(device), outputs=self.outputs.to(device))

    def add(self, x: Float[Tensor, "n d1"], dy: Float[Tensor, "n d2"]) -> "KfacCovariances":
        """Return the covariances with n more tokens, which include no padding."""
        inputs, outputs = self.inputs + product(x.mT, x), self.outputs + product(dy.mT, dy)
        return KfacCovariances(inputs, outputs, self.tokens + x.shape[0])

    def merge(self, other: "KfacCovariances") -> "KfacCovariances":
        """Return the covariances of two disjoint sets of data."""
        return KfacCovariances(self.inputs + other.inputs, self.outputs + other.outputs, self.tokens + other.tokens)

    def projected(self, projection: LayerProjection) -> "KfacCovariances":
        """Return the covariances of the projected tokens, P^T A P on either side."""

        def side(total: Tensor, p: Tensor | None) -> Tensor:
            return total if p is None else projected(projected(total, p).mT, p)

        return replace(self, inputs=side(self.inputs, projection.p_in), outputs=side(self.outputs, projection.p_out))

    def bases(self, damping: float, whitening_rank: int | None = None) -> "KfacBases":
        """Return the eigenbases of the mean covariances, computed in FP64.

        Raises:
            ValueError: a covariance is not finite.
        """
        a, q_in = self._eigenpairs(self.inputs)
        b, q_out = self._eigenpairs(self.outputs)
        return KfacBases(q_in, q_out, a, b, damping, whitening_rank)

    def diagonality(self, bases: "KfacBases") -> float:
        """Return how well bases fitted to other data diagonalise these covariances, from 0 to 1.

        The share of ||Q^T A Q||_F^2 that lies on the diagonal, on the input or the output side, whichever is smaller.
        """
        shares = []
        for total, basis in ((self.inputs, bases.q_in), (self.outputs, bases.q_out)):
            turned = (basis.mT @ total @ basis).double()
            size = float(turned.square().sum())
            shares.append(float(turned.diagonal().square().sum()) / size if size else 1.0)
        return min(shares)

    def _eigenpairs(self, total: Float[Tensor, "d d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
        if not bool(total.isfinite().all()):
            raise ValueError("the covariance of activations or output gradients is not finite")
        values, vectors = torch.linalg.eigh(total.double() / max(self.tokens, 1))
        return values.clamp(min=0.0).to(total.dtype), vectors.to(total.dtype)


@dataclass(frozen=True)
class SideWhitening:
    """The whitening W [d, d] of one side: by all eigenvectors into their axes, or by the leading ones in the tokens' own.

    `weights` has one number for each eigenvector, smallest eigenvalue first; `leading` is the number of those that count
    singly, None where all do.
    """

    q: Float[Tensor, "d d"]
    weights: Float[Tensor, " d"]
    leading: int | None

    @classmethod
    def of(
        cls, q: Float[Tensor, "d d"], values: Float[Tensor, " d"], damping: float, rank: int | None
    ) -> "SideWhitening":
        """Return the whitening of a side of these eigenpairs, by `rank` of them where it is more than twice as wide.

        A side whose covariance is zero is left as it is.
        """
        mean = values.mean()
        leading = None if rank is None or len(values) <= 2 * rank else rank
        if leading is not None:
            rest = len(values) - leading
            values = torch.cat([values[:rest].mean().expand(rest), values[rest:]])
        return cls(q, torch.where(mean > 0, values + damping * mean, 1.0).rsqrt(), leading)

    @property
    def columns(self) -> int:
        """Products for each number of a token."""
        return len(self.weights) if self.leading is None else 2 * self.leading

    def apply(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return x W."""
        if self.leading is None:
            return product(x, self.q) * self.weights
        vectors, rest = self.q[:, -self.leading :], self.weights[0]
        along = product(x, vectors) * (self.weights[-self.leading :] / rest - 1)
        # One pass over the tokens for the sum, in place of three.
        added = torch.addmm(x.flatten(0, -2), along.flatten(0, -2), vectors.mT).mul_(rest)
        return added.view(x.shape)

    def energies_along_axes(self, energies: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Return mean squares along the eigenvectors in the axes that `apply` gives, as of numbers that do not covary."""
        return energies if self.leading is None else self.q.to(energies).square() @ energies

    def from_eigenbasis(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return rows that have eigenvectors as axes in the axes that `apply` gives."""
        return x if self.leading is None else product(x, self.q.mT)

    def to_eigenbasis(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return rows in the axes that `apply` gives along the eigenvectors."""
        return x if self.leading is None else product(x, self.q)


@dataclass(frozen=True)
class KfacBases:
    """Q_A, Q_B, the eigenvalues a and b, and m: the damping of the K-FAC scale, in multiples of their means.

    With `whitening_rank` k, sides wider than 2 k are whitened by their leading k eigenvectors. `optimizer` has the roots of
    Adam's second moments along the axes, where the curvature is made of them.
    """

    q_in: Float[Tensor, "d1 d1"]
    q_out: Float[Tensor, "d2 d2"]
    a: Float[Tensor, " d1"]
    b: Float[Tensor, " d2"]
    damping: float
    whitening_rank: int | None = None
    optimizer: Float[Tensor, "d1 d2"] | None = None

    @cached_property
    def inputs(self) -> SideWhitening:
        """The whitening of the input side."""
        return SideWhitening.of(self.q_in, self.a, self.damping, self.whitening_rank)

    @cached_property
    def outputs(self) -> SideWhitening:
        """The whitening of the output side."""
        return SideWhitening.of(self.q_out, self.b, self.damping, self.whitening_rank)

    def rotate(self, gradients: Float[Tensor, "n d1 d2"]) -> Float[Tensor, "n d1 d2"]:
        """Return R = Q_A^T G Q_B."""
        return product_from_left(self.q_in.mT, product(self._as_bases(gradients), self.q_out))

    @property
    def is_whole(self) -> bool:
        """Whether all eigenvectors of either side count, so that whitened gradients are R * s."""
        return self.inputs.leading is None and self.outputs.leading is None

    def whitened(self, gradients: Float[Tensor, "n d1 d2"]) -> Float[Tensor, "n d1 d2"]:
        """Return whitened gradients, W_A^T G W_B."""
        if self.is_whole:
            return self.rotate(gradients) * self.scale
        return self.inputs.apply(self.outputs.apply(self._as_bases(gradients)).mT).mT

    def axis_sizes(self, energies: Float[Tensor, "d1 d2"]) -> Float[Tensor, "d1 d2"]:
        """Return how large whitened gradients are along the axes of either side, as a product; the mean of a side is 1.

        A side's sizes are the roots of the mean squares of its rows. What is kept as signs knows nothing of them.

        Args:
            energies: mean squares of the training gradients along the eigenvectors, Lam.
        """
        whitened = energies.double() * self.scale.double().square()
        sides = (
            self.inputs.energies_along_axes(whitened.sum(1)),
            self.outputs.energies_along_axes(whitened.sum(0)),
        )
        sizes = [side.clamp(min=0.0).sqrt() for side in sides]
        return torch.outer(*(torch.where(side.mean() > 0, side / side.mean(), 1.0) for side in sizes))

    def in_factor_axes(self, rotated: Float[Tensor, "n d1 d2"]) -> Float[Tensor, "n d1 d2"]:
        """Return matrices whose axes are eigenvectors, as R's are, in the axes of whitened gradients."""
        return self.inputs.from_eigenbasis(self.outputs.from_eigenbasis(self._as_bases(rotated)).mT).mT

    def in_eigenbasis(self, whitened: Float[Tensor, "n d1 d2"]) -> Float[Tensor, "n d1 d2"]:
        """Return whitened gradients along the eigenvectors, R * s."""
        return self.inputs.to_eigenbasis(self.outputs.to_eigenbasis(self._as_bases(whitened)).mT).mT

    def _as_bases(self, gradients: Float[Tensor, "n d1 d2"]) -> Float[Tensor, "n d1 d2"]:
        # Bases of a model in FP64 are in FP64; what is stored or held of its gradients is not.
        return gradients.to(self.q_in.dtype)

    @cached_property
    def scale(self) -> Float[Tensor, "d1 d2"]:
        """The K-FAC scale s along the eigenvectors; a side whose covariance is zero is left as it is."""
        return torch.outer(self.inputs.weights, self.outputs.weights)

    def tensors(self) -> dict[str, Tensor]:
        """Return the stored tensors of the bases, by name."""
        tensors = {"q_in": self.q_in, "q_out": self.q_out, "a": self.a, "b": self.b}
        return tensors if self.optimizer is None else {**tensors, "optimizer": self.optimizer}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], damping: float, device: torch.device, whitening_rank: int | None = None
    ) -> "KfacBases":
        """Return the bases from their stored tensors."""
        q_in, q_out, a, b = (tensors[name].to(device) for name in ("q_in", "q_out", "a", "b"))
        optimizer = tensors["optimizer"].to(device) if "optimizer" in tensors else None
        return cls(q_in, q_out, a, b, damping, whitening_rank, optimizer)
