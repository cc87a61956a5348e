"""Arrays of numbers as values of MDS, each with what its encoding leaves open in front: the type of its numbers, and its shape.

The type is a byte, and the shape a byte of the number of its dimensions and the size of their numbers, and the numbers
(https://github.com/mosaicml/streaming/blob/main/streaming/base/format/mds/encodings.py).
"""

from collections.abc import Sequence
from math import prod

import numpy as np
import pyarrow as pa

_TYPES = {
    **{8: "u1", 9: "i1", 16: "u2", 17: "i2", 18: "f2"},
    **{32: "u4", 33: "i4", 34: "f4", 64: "u8", 65: "i8", 66: "f8"},
}
_NAMES = {np.dtype(kind).name: kind for kind in _TYPES.values()}


def array_column(stored: Sequence[bytes], form: str) -> pa.Array:
    """Return arrays of one number of dimensions as lists.

    Args:
        stored: the values.
        form: what the encoding says of them: nothing, their type, or type and shape (`uint16:2048`).

    Raises:
        ValueError: they are no such arrays.
    """
    name, _, dimensions = form.partition(":")
    if name and name not in _NAMES:
        raise ValueError(f"arrays of {name!r} are none of numbers")
    shape = tuple(map(int, dimensions.split(","))) if dimensions else None
    arrays = [_array(value, _NAMES.get(name), shape) for value in stored]
    if len({array.ndim for array in arrays}) > 1:
        raise ValueError("arrays of one column have other numbers of dimensions")
    numbers = np.concatenate([array.reshape(-1) for array in arrays])
    if np.issubdtype(numbers.dtype, np.floating) and not all(np.issubdtype(one.dtype, np.floating) for one in arrays):
        raise ValueError("arrays of one column have types of numbers that no other type holds")
    lists = pa.array(numbers)
    for axis in range(arrays[0].ndim - 1, -1, -1):
        lengths = np.concatenate([np.full(prod(array.shape[:axis]), array.shape[axis], np.int64) for array in arrays])
        lists = pa.LargeListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]), lists)
    return lists


def _array(value: bytes, kind: str | None, shape: tuple[int, ...] | None) -> np.ndarray:
    if kind is None:
        kind, value = _TYPES.get(value[0] if value else 0), value[1:]
        if kind is None:
            raise ValueError("an array does not say of what numbers it is")
    if shape is None:
        form, value = value[:1], value[1:]
        n_dimensions, size = form[0] >> 2 if form else 0, 1 << (form[0] & 3 if form else 0)
        shape = tuple(np.frombuffer(value[: n_dimensions * size], f"<u{size}").tolist())
        value = value[n_dimensions * size :]
        if not n_dimensions or len(shape) != n_dimensions:
            raise ValueError("an array does not say its shape")
    numbers = np.frombuffer(value, f"<{kind}")
    if prod(shape) != len(numbers):
        raise ValueError(f"an array of the shape {shape} has {len(numbers):,} numbers")
    # Of an array without numbers, the other sizes may be any.
    return numbers.reshape(shape if len(numbers) else (0,) * len(shape))
