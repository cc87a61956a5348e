"""How gradient factors are stored: one run of bytes per example and layer.

`bf16`, `fp32`: the numbers of u [d1, c], then those of v [d2, c]; row-major (the c components of one coordinate lie side
by side), little-endian.

`int8`, `int4`, `sign`: c records, one per component k, largest first. A record is

    scale   4 bytes       little-endian FP32: component k of the gradient is scale * p q^T
    p       [d1] codes    packed, filled up to a whole byte with zero bits
    q       [d2] codes    the same

    int8    a byte per code: the number in two's complement, from -127 to 127
    int4    two codes per byte, the first in the low nibble: the number + 8, for numbers from -7 to 7
    sign    eight codes per byte, the first in the least significant bit: 1 for +1, 0 for -1

The components are the singular vectors of u v^T; a code is the entry over the vector's unit, rounded. The unit is the
largest magnitude / 127 (int8) or / 7 (int4), and the mean magnitude (sign). How a component's size is split between u and
v changes no gradient, so the two units are kept as one product: four bytes, as two FP16 scales would take, without their
overflow at 65,504 and their loss of digits below 6e-5. Decoded factors are balanced: each side has sqrt(scale).
"""

from enum import StrEnum
from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lorif_assets.mathematics.factors.low_rank import GradientFactors, singular_factors
from lorif_assets.mathematics.factors.packed_signs import LayerFactors, PackedSigns, unpacked_signs

_SCALE_BYTES = 4
_PLAIN = {"bf16": torch.bfloat16, "fp32": torch.float32}
_BITS = {"int8": 8, "int4": 4, "sign": 1}
_LARGEST = {"int8": 127, "int4": 7}


class FactorCodec(StrEnum):
    """Number format of stored factors."""

    BF16 = "bf16"
    FP32 = "fp32"
    INT8 = "int8"
    INT4 = "int4"
    SIGN = "sign"


def factor_bytes(codec: FactorCodec, d1: int, d2: int, c: int) -> int:
    """Return the bytes of one example's factors in one layer: those of one component times min(c, d1, d2)."""
    if codec.value in _PLAIN:
        component = (d1 + d2) * _PLAIN[codec.value].itemsize
    else:
        component = _SCALE_BYTES + _packed_bytes(codec, d1) + _packed_bytes(codec, d2)
    return min(c, d1, d2) * component


def encode(factors: GradientFactors, codec: FactorCodec) -> UInt8[Tensor, "n bytes"]:
    """Return the factors of n examples as bytes, one row each."""
    if codec.value in _PLAIN:
        flat = torch.cat([factors.u.flatten(1), factors.v.flatten(1)], dim=1)
        return flat.to(_PLAIN[codec.value]).contiguous().view(torch.uint8)
    singular = singular_factors(factors)
    p, q = singular.u.float().mT, singular.v.float().mT
    unit_p, unit_q = _units(p, codec), _units(q, codec)
    scale = (unit_p * unit_q).contiguous().view(torch.uint8)
    return torch.cat([scale, _packed(p, unit_p, codec), _packed(q, unit_q, codec)], dim=2).flatten(1)


def has_records(codec: FactorCodec) -> bool:
    """Return whether an example's bytes are a run for each component, so that those of the leading ones come first."""
    return codec.value not in _PLAIN


def decode(data: UInt8[Tensor, "n bytes"], codec: FactorCodec, d1: int, d2: int) -> GradientFactors:
    """Return FP32 factors from the bytes of n examples.

    Raises:
        ValueError: a row's length is not a whole number of components of d1 + d2 numbers.
    """
    c = _components(data, codec, d1, d2)
    if codec.value in _PLAIN:
        values = data.contiguous().view(_PLAIN[codec.value]).to(torch.float32)
        return GradientFactors(values[:, : d1 * c].unflatten(1, (d1, c)), values[:, d1 * c :].unflatten(1, (d2, c)))
    scales, p, q = _records(data, codec, d1, d2, c)
    root = scales.sqrt().unsqueeze(2)
    return GradientFactors(_unpacked(p, d1, codec).mul_(root).mT, _unpacked(q, d2, codec).mul_(root).mT)


def scored_form(data: UInt8[Tensor, "n bytes"], codec: FactorCodec, d1: int, d2: int) -> LayerFactors:
    """Return factors in the form that is scored fastest where the bytes are: on a CPU, signs as they are stored.

    Raises:
        ValueError: a row's length is not a whole number of components of d1 + d2 numbers.
    """
    if codec is not FactorCodec.SIGN or data.device.type != "cpu":
        return decode(data, codec, d1, d2)
    return PackedSigns(*_records(data, codec, d1, d2, _components(data, codec, d1, d2)), d1, d2)


def _components(data: UInt8[Tensor, "n bytes"], codec: FactorCodec, d1: int, d2: int) -> int:
    c, rest = divmod(data.shape[1], factor_bytes(codec, d1, d2, 1))
    if rest or c == 0:
        raise ValueError(
            f"{data.shape[1]} bytes are no whole number of {codec.value} components of {d1} + {d2} numbers: the "
            "factors were written for a layer of another shape"
        )
    return c


def _records(
    data: UInt8[Tensor, "n bytes"], codec: FactorCodec, d1: int, d2: int, c: int
) -> tuple[Float[Tensor, "n c"], UInt8[Tensor, "n c b1"], UInt8[Tensor, "n c b2"]]:
    """Return the scales of all components, and the codes of either side."""
    records = data.unflatten(1, (c, -1))
    scale, codes = records[..., :_SCALE_BYTES], records[..., _SCALE_BYTES:]
    p, q = codes.split([_packed_bytes(codec, d1), _packed_bytes(codec, d2)], dim=2)
    # `contiguous` keeps the odd strides of a single record, which an FP32 view cannot have.
    return scale.clone(memory_format=torch.contiguous_format).view(torch.float32).squeeze(2), p, q


def _packed_bytes(codec: FactorCodec, d: int) -> int:
    return (d * _BITS[codec.value] + 7) // 8


def _units(vectors: Float[Tensor, "n c d"], codec: FactorCodec) -> Float[Tensor, "n c 1"]:
    if codec is FactorCodec.SIGN:
        return vectors.abs().mean(dim=2, keepdim=True)
    return vectors.abs().amax(dim=2, keepdim=True) / _LARGEST[codec.value]


def _packed(
    vectors: Float[Tensor, "n c d"], units: Float[Tensor, "n c 1"], codec: FactorCodec
) -> UInt8[Tensor, "n c b"]:
    if codec is FactorCodec.SIGN:
        bits = _filled_up((vectors >= 0).to(torch.uint8), 8)
        return (bits * _powers(bits.device)).sum(dim=3, dtype=torch.uint8)
    # A zero vector has unit 0 and codes 0. Units near the smallest FP32 number are too coarse to bound the codes.
    largest = _LARGEST[codec.value]
    numbers = (vectors / units.where(units > 0, 1.0)).round().clamp(-largest, largest).to(torch.int8)
    if codec is FactorCodec.INT8:
        return numbers.view(torch.uint8)
    low, high = _filled_up((numbers + 8).to(torch.uint8), 2).unbind(3)
    return low | (high << 4)


@cache
def _powers(device: torch.device) -> UInt8[Tensor, "8"]:
    """Return what a byte's bits count, copied to a device once."""
    return torch.tensor([1 << k for k in range(8)], dtype=torch.uint8, device=device)


def _filled_up(codes: UInt8[Tensor, "n c d"], per_byte: int) -> UInt8[Tensor, "n c b per_byte"]:
    filled = torch.nn.functional.pad(codes, (0, -codes.shape[2] % per_byte))
    return filled.view(*filled.shape[:2], filled.shape[2] // per_byte, per_byte)


def _unpacked(packed: UInt8[Tensor, "n c b"], d: int, codec: FactorCodec) -> Float[Tensor, "n c d"]:
    if codec is FactorCodec.INT8:
        return packed.contiguous().view(torch.int8).float()
    if codec is FactorCodec.SIGN:
        return unpacked_signs(packed, d).float()
    # Whole bytes are looked up, with both codes of a byte as one integer: 5 to 10 times faster than code by code.
    values = torch.arange(256, device=packed.device).unsqueeze(1)
    words = (torch.cat([values & 15, values >> 4], dim=1) - 8).to(torch.int8).view(torch.int16).squeeze(1)
    return words.index_select(0, packed.flatten().int()).view(packed.shape).view(torch.int8)[..., :d].float()
