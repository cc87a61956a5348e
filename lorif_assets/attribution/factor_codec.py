"""How gradient factors are stored: one run of bytes per example and layer, the numbers of u [d1, c] then v [d2, c].

Both are row-major (the c components of one coordinate lie side by side) and little-endian.
"""

from enum import StrEnum

import torch
from jaxtyping import UInt8
from torch import Tensor

from lorif_assets.attribution.low_rank import GradientFactors


class FactorCodec(StrEnum):
    """Number format of stored factors."""

    BF16 = "bf16"
    FP32 = "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of one stored number."""
        return torch.bfloat16 if self is FactorCodec.BF16 else torch.float32


def factor_bytes(codec: FactorCodec, d1: int, d2: int, c: int) -> int:
    """Return the bytes of one example's factors in one layer: c (d1 + d2) numbers, c at most min(d1, d2)."""
    return min(c, d1, d2) * (d1 + d2) * codec.dtype.itemsize


def encode(factors: GradientFactors, codec: FactorCodec) -> UInt8[Tensor, "n bytes"]:
    """Return the factors of n examples as bytes, one row each."""
    flat = torch.cat([factors.u.flatten(1), factors.v.flatten(1)], dim=1)
    return flat.to(codec.dtype).contiguous().view(torch.uint8)


def decode(data: UInt8[Tensor, "n bytes"], codec: FactorCodec, d1: int, d2: int) -> GradientFactors:
    """Return FP32 factors from the bytes of n examples.

    Raises:
        ValueError: a row's length is not a whole number of components of d1 + d2 numbers.
    """
    c, rest = divmod(data.shape[1], factor_bytes(codec, d1, d2, 1))
    if rest or c == 0:
        raise ValueError(
            f"{data.shape[1]} bytes are no whole number of {codec.value} components of {d1} + {d2} numbers: the "
            "factors were written for a layer of another shape"
        )
    values = data.contiguous().view(codec.dtype).to(torch.float32)
    return GradientFactors(u=values[:, : d1 * c].unflatten(1, (d1, c)), v=values[:, d1 * c :].unflatten(1, (d2, c)))
