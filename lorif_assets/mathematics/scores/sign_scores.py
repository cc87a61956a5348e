"""Scores of packed signs against whole queries, on a CPU and without unpacking: tile by tile, in machine code."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from lorif_assets.mathematics.factors.packed_signs import PER_BYTE, PackedSigns, sums_of_eight
from lorif_assets.mathematics.scores import compiled_signs

# Tiles whose tables are in memory at a time: 4 MiB.
_TILES = 8
# Components of a thread, at least: fewer take less time than a thread to start.
_COMPONENTS_PER_THREAD = 1 << 13


@dataclass(frozen=True)
class _Tile:
    """Some bytes of the signs p, and some of the signs q."""

    p: range
    q: range

    def table(self, matrix: Float[Tensor, "b1 8 d2"]) -> Float[Tensor, "sums columns"]:
        """Return the sums of the tile's rows that its bytes stand for, in the tile's columns."""
        columns = matrix[self.p.start : self.p.stop, :, PER_BYTE * self.q.start : PER_BYTE * self.q.stop]
        return sums_of_eight(columns)

    def add_scores(self, signs: PackedSigns, table: Tensor, scores: Float[Tensor, " n"]) -> None:
        """Add the tile's part of the scores of some examples."""
        kernel = compiled_signs.kernel(len(self.p), PER_BYTE * len(self.q))
        kernel(
            signs.p.data_ptr() + self.p.start,
            signs.q.data_ptr() + self.q.start,
            signs.scales.data_ptr(),
            table.data_ptr(),
            scores.data_ptr(),
            *signs.scales.shape,
            *signs.p.stride()[:2],
            *signs.q.stride()[:2],
        )


def sign_scores(queries: Float[Tensor, "Q D"], signs: PackedSigns) -> Float[Tensor, "Q n"]:
    """Return the sum over components of scale * p^T M q, in FP32, for the queries M [d1, d2].

    An example's scores do not depend on the examples beside it, nor on the number of threads.
    """
    matrices = queries.float().unflatten(1, (signs.d1, signs.d2))
    if signs.d1 < signs.d2:
        # Of the bytes p a tile can have any number; columns that are no multiple of 64 take more tiles.
        matrices, signs = matrices.mT, signs.transposed()
    scores = torch.zeros(len(queries), len(signs))
    if not scores.numel():
        return scores
    signs = PackedSigns(signs.scales.contiguous(), _close_bytes(signs.p), _close_bytes(signs.q), signs.d1, signs.d2)
    shares = _shares(signs)
    tiles = list(_tiles(signs.p.shape[2], signs.q.shape[2]))
    with ThreadPoolExecutor(len(shares), "sign-scores") as threads:
        for matrix, of_query in zip(matrices, scores, strict=True):
            filled = _filled_up(matrix, signs)
            for first in range(0, len(tiles), _TILES):
                some = tiles[first : first + _TILES]
                tables = [tile.table(filled) for tile in some]

                def add(
                    share: slice,
                    some: Sequence[_Tile] = some,
                    tables: Sequence[Tensor] = tables,
                    of_query: Tensor = of_query,
                ) -> None:
                    for tile, table in zip(some, tables, strict=True):
                        tile.add_scores(signs[share], table, of_query[share])

                list(threads.map(add, shares) if len(shares) > 1 else map(add, shares))
    return scores


def _close_bytes(packed: UInt8[Tensor, "n c b"]) -> UInt8[Tensor, "n c b"]:
    """Return signs whose bytes lie side by side; components and examples may lie apart."""
    return packed if packed.stride(2) == 1 or packed.shape[2] == 1 else packed.contiguous()


def _shares(signs: PackedSigns) -> list[slice]:
    """Return which examples each thread scores: as many threads as torch may use, if there is enough to do."""
    n, c = signs.scales.shape
    threads = max(1, min(torch.get_num_threads(), n * c // _COMPONENTS_PER_THREAD))
    return [slice(first, end) for first, end in pairwise(n * at // threads for at in range(threads + 1))]


def _filled_up(matrix: Float[Tensor, "d1 d2"], signs: PackedSigns) -> Float[Tensor, "b1 8 d2"]:
    """Return a matrix with zeros for the signs that fill up the last byte of either side."""
    missing = [PER_BYTE * side.shape[2] - d for side, d in ((signs.q, signs.d2), (signs.p, signs.d1))]
    return functional.pad(matrix, (0, missing[0], 0, missing[1])).unflatten(0, (-1, PER_BYTE))


def _tiles(p_bytes: int, q_bytes: int) -> Iterator[_Tile]:
    """Cut p into parts of at most eight bytes, as equal as can be, and q into parts of 8, 4, 2 and 1."""
    n_parts = -(-p_bytes // compiled_signs.MOST_BYTES)
    p_parts = [range(*ends) for ends in pairwise(p_bytes * at // n_parts for at in range(n_parts + 1))]
    first = 0
    while first < q_bytes:
        width = min(compiled_signs.most_columns() // PER_BYTE, 1 << ((q_bytes - first).bit_length() - 1))
        yield from (_Tile(p, range(first, first + width)) for p in p_parts)
        first += width
