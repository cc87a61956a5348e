"""Scores of packed signs against whole queries, on a CPU and without unpacking: tile by tile, in machine code."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from lorif_assets.mathematics.factors.packed_signs import PER_BYTE, PackedSigns, sums_of_eight
from lorif_assets.mathematics.scores import compiled_lookups, compiled_rebuilding
from lorif_assets.mathematics.scores.machine_code import has_wide_registers

# Tiles whose tables are in memory at a time: 4 MiB.
_TILES = 8
# Components whose gradients are rebuilt, at most: their sums take 256 KiB of a core's cache.
_MOST_COMPONENTS = 64
# Components of a thread, at least: fewer take less time than a thread to start.
_COMPONENTS_PER_THREAD = 1 << 13

_Part = Callable[[slice], None]
"""Adds a part of some examples' scores."""


def sign_scores(queries: Float[Tensor, "Q D"], signs: PackedSigns) -> Float[Tensor, "Q n"]:
    """Return the sum over components of scale * p^T M q, in FP32, for the queries M [d1, d2].

    An example's scores do not depend on the examples beside it, nor on the number of threads.

    Raises:
        RuntimeError: LLVM cannot compile for this processor.
    """
    matrices = queries.float().unflatten(1, (signs.d1, signs.d2))
    if signs.d1 < signs.d2:
        # Of the bytes p a tile can have any number; columns that are no multiple of 64 take more tiles.
        matrices, signs = matrices.mT, signs.transposed()
    scores = torch.zeros(len(queries), len(signs))
    if not scores.numel():
        return scores
    signs = PackedSigns(signs.scales.contiguous(), _close_bytes(signs.p), _close_bytes(signs.q), signs.d1, signs.d2)
    ways = _rebuilt if rebuilding_pays(len(queries), signs.scales.shape[1]) else _looked_up
    shares = _shares(signs)
    for parts in ways(_filled_up(matrices, signs), signs, scores):

        def add(share: slice, parts: Sequence[_Part] = parts) -> None:
            for part in parts:
                part(share)

        list(_threads(os.getpid(), len(shares)).map(add, shares) if len(shares) > 1 else map(add, shares))
    return scores


@cache
def _threads(process: int, n: int) -> ThreadPoolExecutor:  # noqa: ARG001
    """Return threads of this process that stay: to start them anew takes as long as a small layer. A fork has none of them."""
    return ThreadPoolExecutor(n, "sign-scores")


def rebuilding_pays(queries: int, components: int) -> bool:
    """Return whether rebuilt gradients are scored in less time than looked-up sums.

    The rule is fitted to few measurements, at 8 and 16 components and 1 and 10 queries on an AMD EPYC.
    """
    takes_less = queries * components > 5 * queries + 2 * components + 10
    return takes_less and components <= _MOST_COMPONENTS


@dataclass(frozen=True)
class _Tile:
    """Some bytes of the signs p, and some of the signs q."""

    p: range
    q: range

    @property
    def columns(self) -> int:
        """Signs q of a component."""
        return PER_BYTE * len(self.q)

    def of(self, matrices: Float[Tensor, "*Q b1 8 d2"]) -> Float[Tensor, "*Q b 8 columns"]:
        """Return the tile of some matrices."""
        return matrices[..., self.p.start : self.p.stop, :, PER_BYTE * self.q.start : PER_BYTE * self.q.stop]

    def addresses(self, signs: PackedSigns) -> tuple[int, int, int]:
        """Return where the tile's signs p and q and the scales begin."""
        return signs.p.data_ptr() + self.p.start, signs.q.data_ptr() + self.q.start, signs.scales.data_ptr()


def _looked_up(
    matrices: Float[Tensor, "Q b1 8 d2"], signs: PackedSigns, scores: Float[Tensor, "Q n"]
) -> Iterator[list[_Part]]:
    """Yield parts of the scores by looked-up sums, query by query."""
    tiles = list(_tiles(signs, compiled_lookups.MOST_BYTES))
    for matrix, of_query in zip(matrices, scores, strict=True):
        for first in range(0, len(tiles), _TILES):
            yield [_lookup(tile, matrix, signs, of_query) for tile in tiles[first : first + _TILES]]


def _lookup(tile: _Tile, matrix: Float[Tensor, "b1 8 d2"], signs: PackedSigns, scores: Float[Tensor, " n"]) -> _Part:
    table, kernel = sums_of_eight(tile.of(matrix)), compiled_lookups.kernel(len(tile.p), tile.columns)

    def add(share: slice) -> None:
        some, of_some = signs[share], scores[share]
        addresses = (*tile.addresses(some), table.data_ptr(), of_some.data_ptr())
        kernel(*addresses, *some.scales.shape, *some.p.stride()[:2], *some.q.stride()[:2])

    return add


def _rebuilt(
    matrices: Float[Tensor, "Q b1 8 d2"], signs: PackedSigns, scores: Float[Tensor, "Q n"]
) -> Iterator[list[_Part]]:
    """Yield parts of the scores by rebuilt gradients, for some queries at a time."""
    tiles = list(_tiles(signs, compiled_rebuilding.MOST_BYTES))
    groups = -(-len(matrices) // compiled_rebuilding.most_queries(_tables(signs)))
    for some, of_some in zip(matrices.tensor_split(groups), scores.tensor_split(groups), strict=True):
        for first in range(0, len(tiles), _TILES):
            yield [_rebuilding(tile, some, signs, of_some) for tile in tiles[first : first + _TILES]]


def _rebuilding(
    tile: _Tile, matrices: Float[Tensor, "q b1 8 d2"], signs: PackedSigns, scores: Float[Tensor, "q n"]
) -> _Part:
    # A row of all queries, then the next: as the kernel goes through them.
    own = tile.of(matrices).movedim(0, 2).contiguous()
    kernel = compiled_rebuilding.kernel(tile.columns, _tables(signs), len(matrices))

    def add(share: slice) -> None:
        some, of_some = signs[share], scores[:, share]
        addresses = (*tile.addresses(some), own.data_ptr(), of_some.data_ptr())
        strides = (*some.p.stride()[:2], *some.q.stride()[:2], scores.stride(0))
        kernel(*addresses, *some.scales.shape, len(tile.p), *strides)

    return add


def _tables(signs: PackedSigns) -> int:
    """Return of how many tables an example's rows are rebuilt: pairs, so that layers of different ranks share machine code."""
    return 2 * -(-signs.scales.shape[1] // PER_BYTE)


def _close_bytes(packed: UInt8[Tensor, "n c b"]) -> UInt8[Tensor, "n c b"]:
    """Return signs whose bytes lie side by side; components and examples may lie apart."""
    return packed if packed.stride(2) == 1 or packed.shape[2] == 1 else packed.contiguous()


def _shares(signs: PackedSigns) -> list[slice]:
    """Return which examples each thread scores: as many threads as torch may use, if there is enough to do."""
    n, c = signs.scales.shape
    threads = max(1, min(torch.get_num_threads(), n * c // _COMPONENTS_PER_THREAD))
    return [slice(first, end) for first, end in pairwise(n * at // threads for at in range(threads + 1))]


def _filled_up(matrices: Float[Tensor, "Q d1 d2"], signs: PackedSigns) -> Float[Tensor, "Q b1 8 d2"]:
    """Return matrices with zeros for the signs that fill up the last byte of either side."""
    missing = [PER_BYTE * side.shape[2] - d for side, d in ((signs.q, signs.d2), (signs.p, signs.d1))]
    filled: Tensor = functional.pad(matrices, (0, missing[0], 0, missing[1])).unflatten(1, (-1, PER_BYTE))
    return filled


def _tiles(signs: PackedSigns, most_bytes: int) -> Iterator[_Tile]:
    """Cut p into parts of at most so many bytes, as equal as can be, and q into parts of 8 bytes, 4, 2 and 1.

    Columns for which registers are too few are cut in two.
    """
    p_bytes, q_bytes = signs.p.shape[2], signs.q.shape[2]
    n_parts = -(-p_bytes // most_bytes)
    p_parts = [range(*ends) for ends in pairwise(p_bytes * at // n_parts for at in range(n_parts + 1))]
    widest, first = 8 if has_wide_registers() else 4, 0
    while first < q_bytes:
        width = min(widest, 1 << ((q_bytes - first).bit_length() - 1))
        yield from (_Tile(p, range(first, first + width)) for p in p_parts)
        first += width
