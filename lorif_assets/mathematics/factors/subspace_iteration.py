"""Leading singular triples of a batch of matrices by subspace iteration, in products over the whole batch alone.

The matrices need not be formed: what is asked of them is their product with a few columns from either side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.factors.jacobi_eigenpairs import jacobi_eigenpairs
from lorif_assets.mathematics.factors.orthonormal_columns import evened_columns, orthonormal_columns
from lorif_assets.mathematics.matrix_products import tf32_products

ROUNDS = 4
"""Rounds where none are asked for: of a matrix of independent numbers, the hardest case, the components that are kept have
98 % of the squares that the best have, and of spectra that decay as j^(-1/2) 99.9 %."""

_OVERSAMPLING = 8
_NARROWEST, _STEP = 16, 32
# From this share of the narrower side on, all of it is taken, without iterations.
_WHOLE_SHARE = 0.75
_START_SEED = 20_601


@dataclass(frozen=True)
class MatrixBatch:
    """Matrices G [n, d1, d2] as their products with columns on the right, G V [n, d1, w], and on the left, G^T U."""

    d1: int
    d2: int
    times: Callable[[Float[Tensor, "n d2 w"]], Float[Tensor, "n d1 w"]]
    transposed_times: Callable[[Float[Tensor, "n d1 w"]], Float[Tensor, "n d2 w"]]
    like: Tensor
    """A tensor of their number n, floating type and device."""

    @classmethod
    def of(cls, gradients: Float[Tensor, "n d1 d2"]) -> "MatrixBatch":
        """Return matrices that are there."""
        _, d1, d2 = gradients.shape
        return cls(d1, d2, lambda v: gradients @ v, lambda u: gradients.mT @ u, gradients)


@dataclass(frozen=True)
class SingularTriples:
    """Leading components u v^T of n matrices, largest first: v has orthonormal columns, u orthogonal ones.

    `squares` are the squared singular values, the squared norms of u's columns, in FP64.
    """

    u: Float[Tensor, "n d1 c"]
    v: Float[Tensor, "n d2 c"]
    squares: Float[Tensor, "n c"]


def basis_width(c: int, d1: int, d2: int) -> int:
    """Return how many columns are iterated for c components: of few widths, so that layers of many ranks share the work."""
    narrow = min(d1, d2)
    width = shared_rank(min(c, narrow)) + _OVERSAMPLING
    return narrow if width >= _WHOLE_SHARE * narrow else width


def shared_rank(c: int) -> int:
    """Return the largest number of components for which as many columns are iterated as for c."""
    columns = c + _OVERSAMPLING
    return max(_NARROWEST, -(-columns // _STEP) * _STEP if columns > _NARROWEST else 0) - _OVERSAMPLING


def leading_triples(batches: Sequence[MatrixBatch], c: int, rounds: int = ROUNDS) -> list[SingularTriples]:
    """Return the leading min(c, d1, d2) singular triples of batches of matrices, which may differ in shape.

    Args:
        batches: of matrices whose products with columns of length one are within the range of their type.
        c: components.
        rounds: of iteration, each a product from either side. The start is the same for every matrix.
    """
    by_width: dict[int, list[MatrixBatch]] = {}
    for batch in batches:
        by_width.setdefault(basis_width(c, batch.d1, batch.d2), []).append(batch)
    found = {
        id(batch): triples
        for width, of_width in by_width.items()
        for batch, triples in zip(of_width, _triples(of_width, c, width, rounds), strict=True)
    }
    return [found[id(batch)] for batch in batches]


def _triples(batches: Sequence[MatrixBatch], c: int, width: int, rounds: int) -> list[SingularTriples]:
    """Return the triples of batches whose bases have one width: what is done to small matrices is done to all at once."""
    bases = _bases(batches, width, rounds)
    images = [batch.times(basis) for batch, basis in zip(batches, bases, strict=True)]
    grams = [wide.mT @ wide for wide in (image.double() for image in images)]
    values, vectors = jacobi_eigenpairs(grams[0] if len(grams) == 1 else torch.cat(grams))
    counts = [len(gram) for gram in grams]
    triples = []
    for batch, image, basis, squares, turns in zip(
        batches, images, bases, values.split(counts), vectors.split(counts), strict=True
    ):
        kept = min(c, batch.d1, batch.d2)
        turn = turns[:, :, :kept].to(image.dtype)
        triples.append(SingularTriples(image @ turn, basis @ turn, squares[:, :kept].clamp(min=0.0)))
    return triples


def _bases(batches: Sequence[MatrixBatch], width: int, rounds: int) -> list[Float[Tensor, "n d2 w"]]:
    """Return orthonormal columns [n, d2, w] whose spans hold nearly all of the leading right singular vectors."""
    starts = [_start(batch.d2, width, batch.like.device, batch.like.dtype) for batch in batches]
    bases: dict[int, Tensor] = {}
    iterated, unfinished = [], []
    for at, (batch, start) in enumerate(zip(batches, starts, strict=True)):
        if width == batch.d2:
            bases[at] = torch.eye(width, dtype=start.dtype, device=start.device).expand(len(batch.like), width, width)
        elif width == batch.d1:
            left = torch.eye(width, dtype=start.dtype, device=start.device).expand(len(batch.like), width, width)
            unfinished.append((at, batch.transposed_times(left)))
        else:
            iterated.append(at)
    if iterated:
        chosen = [batches[at] for at in iterated]
        found = [starts[at].expand(len(batches[at].like), batches[at].d2, width) for at in iterated]
        # TF32's digits are enough for a subspace that one more round, with all digits, brings to its place.
        with tf32_products(allowed=True):
            for _ in range(rounds - 1):
                found = evened_columns(_round(chosen, found))
        unfinished += zip(iterated, _round(chosen, found), strict=True)
    if unfinished:
        finished = orthonormal_columns([x for _, x in unfinished], [starts[at] for at, _ in unfinished])
        bases |= {at: basis for (at, _), basis in zip(unfinished, finished, strict=True)}
    return [bases[at] for at in range(len(batches))]


def _round(batches: Sequence[MatrixBatch], bases: Sequence[Tensor]) -> list[Float[Tensor, "n d2 w"]]:
    images = evened_columns([batch.times(basis) for batch, basis in zip(batches, bases, strict=True)])
    return [batch.transposed_times(image) for batch, image in zip(batches, images, strict=True)]


@cache
def _start(d: int, width: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "d w"]:
    """Return columns in general position of a length near one, the same on every device, copied to it once."""
    generator = torch.Generator().manual_seed(_START_SEED)
    start: Tensor = torch.randn(d, width, generator=generator) / d**0.5
    return start.to(device, dtype)
