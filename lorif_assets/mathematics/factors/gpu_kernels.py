"""What subspace iteration does to many small matrices, as kernels of a GPU: a program for each matrix, all steps in one launch.

As operations over the batch each step is a launch of its own, and the GPU waits for its host. Two are here: columns made
orthonormal one after the other (modified Gram-Schmidt), and eigenpairs by Jacobi's rotations. One-sided rotations make the
columns of A V orthogonal, so that V has A's eigenvectors and the columns' lengths are its eigenvalues (Hestenes 1958,
"Inversion of matrices by biorthogonalization and related results"). A step rotates w / 2 disjoint pairs of columns; a sweep
of w - 1 steps meets every pair once, and a matrix is done when a sweep finds nothing to rotate.

Imported where Triton is installed, which torch brings along on Linux with CUDA or ROCm.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

_SWEEPS = 15
_ROWS = 32
_WARPS, _WARPS_OF_WIDE, _WIDE = 4, 8, 48
# A product of two columns below this share of their lengths' product is no angle, but rounding.
_ORTHOGONAL = 1e-14


def orthogonalised(a: Float[Tensor, "n w w"]) -> tuple[Float[Tensor, "n w"], Float[Tensor, "n w w"]]:
    """Return the lengths of the columns of A V and the rotations V that make them orthogonal, for an even width w."""
    n, width, _ = a.shape
    # Column by column, those of V below those of A.
    columns = torch.cat([a.mT, torch.eye(width, dtype=a.dtype, device=a.device).expand_as(a)], dim=2).contiguous()
    _rotate[(n,)](  # type: ignore[no-untyped-call]
        columns,
        WIDTH=width,
        ROWS=_ROWS,
        PAIRS=triton.next_power_of_2(width // 2),
        SWEEPS=_SWEEPS,
        ORTHOGONAL=_ORTHOGONAL,
        num_warps=_warps(width),
    )
    turned, rotations = columns.split(width, dim=2)
    return torch.linalg.vector_norm(turned, dim=2), rotations.mT


def orthonormalise(x: Float[Tensor, "n d w"], smallest: float) -> None:
    """Make the columns of matrices orthonormal in place, from the first to the last, whatever their size.

    What is left of a column without those before it is brought to length one, but for less than `smallest` of the matrix's
    largest number, which rounding may have left.
    """
    n, rows, width = x.shape
    _subtract[(n,)](
        x,
        smallest,
        HEIGHT=rows,
        WIDTH=width,
        COLUMNS=triton.next_power_of_2(width),
        ROWS=_ROWS,
        num_warps=_warps(width),
    )


def _warps(width: int) -> int:
    return _WARPS if width <= _WIDE else _WARPS_OF_WIDE


@triton.jit  # type: ignore[untyped-decorator]
def _rotate(  # type: ignore[no-untyped-def]  # noqa: ANN202
    columns,  # noqa: ANN001
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    SWEEPS: tl.constexpr,
    ORTHOGONAL: tl.constexpr,
):
    start = columns + tl.program_id(0).to(tl.int64) * 2 * WIDTH * WIDTH
    pair, row = tl.arange(0, PAIRS), tl.arange(0, ROWS)
    is_pair = pair < WIDTH // 2
    sweep = 0
    # Of FP64 from the start, as Triton wants of what a loop changes.
    largest = tl.max(tl.full([PAIRS], 1.0, dtype=tl.float64), axis=0)
    while (sweep < SWEEPS) & (largest > ORTHOGONAL):
        largest = tl.max(tl.zeros([PAIRS], dtype=tl.float64), axis=0)
        for step in range(WIDTH - 1):
            # The last column stays where it is, and the others move round it by one place a step.
            left = tl.where(pair == 0, WIDTH - 1, (step + pair) % (WIDTH - 1))
            right = tl.where(pair == 0, step, (step - pair + WIDTH - 1) % (WIDTH - 1))
            p_start, q_start = start + left[None, :] * 2 * WIDTH, start + right[None, :] * 2 * WIDTH
            pp = tl.zeros([PAIRS], dtype=tl.float64)
            qq = tl.zeros([PAIRS], dtype=tl.float64)
            pq = tl.zeros([PAIRS], dtype=tl.float64)
            for first in range(0, WIDTH, ROWS):
                at = first + row[:, None]
                is_there = is_pair[None, :] & (at < WIDTH)
                p = tl.load(p_start + at, mask=is_there, other=0.0)
                q = tl.load(q_start + at, mask=is_there, other=0.0)
                pp += tl.sum(p * p, axis=0)
                qq += tl.sum(q * q, axis=0)
                pq += tl.sum(p * q, axis=0)
            size = tl.sqrt(pp) * tl.sqrt(qq)
            is_rotated = tl.abs(pq) > ORTHOGONAL * size
            angle = tl.where(is_rotated, tl.abs(pq) / tl.where(size > 0, size, 1.0), 0.0)
            largest = tl.maximum(largest, tl.max(angle, axis=0))
            cotangent = (qq - pp) / tl.where(is_rotated, 2 * pq, 1.0)
            root = tl.abs(cotangent) + tl.sqrt(1 + cotangent * cotangent)
            tangent = tl.where(is_rotated, tl.where(cotangent >= 0, 1.0, -1.0) / root, 0.0)
            cosine = 1 / tl.sqrt(1 + tangent * tangent)
            sine = tangent * cosine
            for first in range(0, 2 * WIDTH, ROWS):
                at = first + row[:, None]
                is_there = is_pair[None, :] & (at < 2 * WIDTH)
                p = tl.load(p_start + at, mask=is_there, other=0.0)
                q = tl.load(q_start + at, mask=is_there, other=0.0)
                tl.store(p_start + at, p * cosine[None, :] - q * sine[None, :], mask=is_there)
                tl.store(q_start + at, p * sine[None, :] + q * cosine[None, :], mask=is_there)
            # The next step's pairs are other threads' columns.
            tl.debug_barrier()
        sweep += 1


@triton.jit
def _subtract(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x,  # noqa: ANN001
    smallest,  # noqa: ANN001
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
):
    start = x + tl.program_id(0).to(tl.int64) * HEIGHT * WIDTH
    column, row = tl.arange(0, COLUMNS), tl.arange(0, ROWS)
    largest = tl.zeros([COLUMNS], dtype=x.dtype.element_ty)
    for first in range(0, HEIGHT, ROWS):
        at = first + row[:, None]
        is_there = (column[None, :] < WIDTH) & (at < HEIGHT)
        numbers = tl.load(start + at * WIDTH + column[None, :], mask=is_there, other=0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(numbers), axis=0))
    # Squares of numbers far from one have no room in FP32.
    size = tl.max(largest, axis=0)
    scale = 1.0 / tl.where(size > 0, size, 1.0)
    for first in range(0, HEIGHT, ROWS):
        at = first + row[:, None]
        is_there = (column[None, :] < WIDTH) & (at < HEIGHT)
        place = start + at * WIDTH + column[None, :]
        tl.store(place, tl.load(place, mask=is_there, other=0.0) * scale, mask=is_there)
    tl.debug_barrier()
    for taken in range(WIDTH):
        products = tl.zeros([COLUMNS], dtype=x.dtype.element_ty)
        for first in range(0, HEIGHT, ROWS):
            at = first + row
            is_there = (column[None, :] >= taken) & (column[None, :] < WIDTH) & (at[:, None] < HEIGHT)
            numbers = tl.load(start + at[:, None] * WIDTH + column[None, :], mask=is_there, other=0.0)
            of_taken = tl.load(start + at * WIDTH + taken, mask=at < HEIGHT, other=0.0)
            products += tl.sum(numbers * of_taken[:, None], axis=0)
        square = tl.sum(tl.where(column == taken, products, 0.0), axis=0)
        length = tl.maximum(tl.sqrt(square), smallest)
        shares = tl.where(column == taken, 1.0 - 1.0 / length, products / (length * length))
        tl.debug_barrier()
        for first in range(0, HEIGHT, ROWS):
            at = first + row
            is_there = (column[None, :] >= taken) & (column[None, :] < WIDTH) & (at[:, None] < HEIGHT)
            place = start + at[:, None] * WIDTH + column[None, :]
            numbers = tl.load(place, mask=is_there, other=0.0)
            # Read before any thread writes it: a step's writes come after a barrier of their own.
            of_taken = tl.load(start + at * WIDTH + taken, mask=at < HEIGHT, other=0.0)
            tl.debug_barrier()
            tl.store(place, numbers - of_taken[:, None] * shares[None, :], mask=is_there)
        tl.debug_barrier()
