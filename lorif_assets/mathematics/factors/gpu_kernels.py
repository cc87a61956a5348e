"""What subspace iteration does to many small matrices, as kernels of a GPU: a program for each matrix, all steps in one launch.

As operations over the batch each step is a launch of its own, and the GPU waits for its host. Two are here: columns made
orthonormal one after the other (modified Gram-Schmidt), and eigenpairs by Jacobi's rotations. One-sided rotations make the
columns of A V orthogonal, so that V has A's eigenvectors and the columns' lengths are its eigenvalues (Hestenes 1958,
"Inversion of matrices by biorthogonalization and related results"). A step rotates w / 2 disjoint pairs of columns; a sweep
of w - 1 steps meets every pair once, and a matrix is done after a sweep that found little to rotate.

Imported where Triton is installed, which torch brings along on Linux with CUDA or ROCm.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

_SWEEPS = 15
_ROWS = 32
_WARPS, _MOST_WARPS, _WIDE = 4, 16, 48
_BYTES_OF_WARP, _MOST_BYTES_OF_WARP = 4_096, 8_192
"""Of a matrix in the registers of a warp: 32 numbers in FP32 for each of its threads, and 64 at most."""
# Of a product of two columns beside their lengths' product: below the first it is rounding. Convergence is quadratic, so
# that a sweep which begins below the second is the last.
_ROUNDING, _NEARLY_ORTHOGONAL = 1e-14, 1e-5


def orthogonalised(a: Float[Tensor, "n w w"]) -> tuple[Float[Tensor, "n w"], Float[Tensor, "n w w"]]:
    """Return the lengths of the columns of A V and the rotations V that make them orthogonal, for an even width w."""
    n, width, _ = a.shape
    # Column by column, those of V below those of A.
    columns = torch.cat([a.mT, torch.eye(width, dtype=a.dtype, device=a.device).expand_as(a)], dim=2).contiguous()
    # Triton starts a kernel on the current device, whatever the tensors'.
    with torch.cuda.device_of(columns):
        _rotate[(n,)](
            columns,
            WIDTH=width,
            ROWS=_ROWS,
            PAIRS=triton.next_power_of_2(width // 2),
            SWEEPS=_SWEEPS,
            ROUNDING=_ROUNDING,
            NEARLY=_NEARLY_ORTHOGONAL,
            num_warps=_WARPS if width <= _WIDE else 2 * _WARPS,
        )
    turned, rotations = columns.split(width, dim=2)
    return torch.linalg.vector_norm(turned, dim=2), rotations.mT


def orthonormalise(x: Float[Tensor, "n d w"], smallest: float) -> bool:
    """Make the columns of matrices orthonormal in place, from the first to the last, whatever their size.

    What is left of a column without those before it is brought to length one, but for less than `smallest` of the matrix's
    largest number, which rounding may have left.

    Returns:
        False for matrices that a program's registers do not hold; they are as they were.
    """
    n, height, width = x.shape
    rows, columns = triton.next_power_of_2(height), triton.next_power_of_2(width)
    size = rows * columns * x.element_size()
    if size > _MOST_WARPS * _MOST_BYTES_OF_WARP:
        return False
    warps = min(max(_WARPS, size // _BYTES_OF_WARP), _MOST_WARPS)
    with torch.cuda.device_of(x):
        _subtract[(n,)](x, smallest, HEIGHT=height, WIDTH=width, ROWS=rows, COLUMNS=columns, num_warps=warps)
    return True


@triton.jit
def _rotate(  # type: ignore[no-untyped-def]  # noqa: ANN202
    columns,  # noqa: ANN001
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRS: tl.constexpr,
    SWEEPS: tl.constexpr,
    ROUNDING: tl.constexpr,
    NEARLY: tl.constexpr,
):
    start = columns + tl.program_id(0).to(tl.int64) * 2 * WIDTH * WIDTH
    pair, row = tl.arange(0, PAIRS), tl.arange(0, ROWS)
    is_pair = pair < WIDTH // 2
    sweep = 0
    # Of FP64 from the start, as Triton wants of what a loop changes.
    largest = tl.max(tl.full([PAIRS], 1.0, dtype=tl.float64), axis=0)
    while (sweep < SWEEPS) & (largest > NEARLY):
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
            is_rotated = tl.abs(pq) > ROUNDING * size
            angle = tl.where(is_rotated, tl.abs(pq) / tl.where(size > 0, size, 1.0), 0.0)
            largest = tl.maximum(largest, tl.max(angle, axis=0))
            cotangent = (qq - pp) / tl.where(is_rotated, 2 * pq, 1.0)
            root = tl.abs(cotangent) + tl.sqrt(1 + cotangent * cotangent)
            tangent = tl.where(is_rotated, tl.where(cotangent >= 0, 1.0, -1.0) / root, 0.0)
            cosine = 1 / tl.sqrt(1 + tangent * tangent)
            sine = tangent * cosine
            # Threads that hold the same pair a second time read it before the first ones write it.
            tl.debug_barrier()
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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    place = x + tl.program_id(0).to(tl.int64) * HEIGHT * WIDTH + row[:, None] * WIDTH + column[None, :]
    is_there = (row[:, None] < HEIGHT) & (column[None, :] < WIDTH)
    numbers = tl.load(place, mask=is_there, other=0.0)
    # Squares of numbers far from one have no room in FP32, and neither has one over the smallest of them.
    size = tl.max(tl.max(tl.abs(numbers), axis=1), axis=0)
    numbers = numbers / tl.where(size > 0, size, 1.0)
    for taken in range(WIDTH):
        of_taken = tl.sum(tl.where(column[None, :] == taken, numbers, 0.0), axis=1)
        products = tl.sum(numbers * of_taken[:, None], axis=0)
        length = tl.maximum(tl.sqrt(tl.sum(tl.where(column == taken, products, 0.0), axis=0)), smallest)
        shares = tl.where(column > taken, products / (length * length), 0.0)
        shares = tl.where(column == taken, 1.0 - 1.0 / length, shares)
        numbers = numbers - of_taken[:, None] * shares[None, :]
    tl.store(place, numbers, mask=is_there)
