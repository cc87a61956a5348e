"""Fixed random-sign projections P_in [I, d1] and P_out [O, d2] of each tracked layer (method: stage 1).

The signs are the bits of SHAKE-256 over (seed, layer name, side): the same on every device, machine and library
version. With projection factor 1, or up to the largest width where one is set, a side is not projected at all (P = identity).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.gradients.layers import TrackedLayer

_SCHEME = b"lorif-signs-1"


@dataclass(frozen=True)
class LayerProjection:
    """The two projections of one layer; None stands for the identity."""

    layer: TrackedLayer
    d1: int
    d2: int
    p_in: Float[Tensor, "I d1"] | None
    p_out: Float[Tensor, "O d2"] | None

    def to(self, device: torch.device, dtype: torch.dtype) -> "LayerProjection":
        """Return the same projection on another device, in another floating type."""

        def moved(p: Tensor | None) -> Tensor | None:
            return None if p is None else p.to(device=device, dtype=dtype)

        return LayerProjection(self.layer, self.d1, self.d2, moved(self.p_in), moved(self.p_out))


def projected_width(width: int, factor: int, max_width: int | None = None) -> int:
    """Return the projected width of a side of `width` numbers: max(1, width // factor), or min(width, max_width).

    Raises:
        ValueError: the factor or the largest width is below 1.
    """
    if max_width is not None:
        if max_width < 1:
            raise ValueError(f"the largest projected width must be at least 1, found {max_width}")
        return min(width, max_width)
    if factor < 1:
        raise ValueError(f"the projection factor must be at least 1, found {factor}")
    return max(1, width // factor)


def _is_projected(width: int, factor: int, max_width: int | None) -> bool:
    return factor > 1 if max_width is None else width > max_width


def _sign_bytes(seed: int, layer: str, side: str, count: int) -> bytes:
    stream = hashlib.shake_256(b"\0".join((_SCHEME, str(seed).encode(), layer.encode(), side.encode())))
    return stream.digest((count + 7) // 8)


def random_signs(seed: int, layer: str, side: str, width: int, d: int) -> Float[Tensor, "width d"]:
    """Return a [width, d] matrix of +-1/sqrt(d), in FP32 on the CPU, that depends on the arguments alone."""
    packed = torch.frombuffer(bytearray(_sign_bytes(seed, layer, side, width * d)), dtype=torch.uint8)
    bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
    signs = bits.flatten()[: width * d].to(torch.float32).mul_(2).sub_(1)
    return signs.reshape(width, d).div_(d**0.5)


def layer_projection(layer: TrackedLayer, factor: int, seed: int, max_width: int | None = None) -> LayerProjection:
    """Return the projections of `layer`.

    For projection factor f: d1 = max(1, I // f), d2 = max(1, O // f). With `max_width`, in place of f: sides that are wider
    are projected to it, and the others not at all.
    """

    def side(name: str, width: int, d: int) -> Tensor | None:
        return random_signs(seed, layer.name, name, width, d) if _is_projected(width, factor, max_width) else None

    d1, d2 = projected_width(layer.d_in, factor, max_width), projected_width(layer.d_out, factor, max_width)
    return LayerProjection(layer, d1, d2, side("in", layer.d_in, d1), side("out", layer.d_out, d2))


def fingerprint(layers: Iterable[TrackedLayer], factor: int, seed: int, max_width: int | None = None) -> str:
    """Return a hash of every projection's shape and signs: equal exactly when two sets of projections are equal."""
    digest = hashlib.blake2b(_SCHEME, digest_size=16)
    for layer in layers:
        d1, d2 = projected_width(layer.d_in, factor, max_width), projected_width(layer.d_out, factor, max_width)
        digest.update(f"|{layer.name}|{layer.d_in}x{d1}|{layer.d_out}x{d2}|".encode())
        for side, width, d in (("in", layer.d_in, d1), ("out", layer.d_out, d2)):
            if _is_projected(width, factor, max_width):
                digest.update(_sign_bytes(seed, layer.name, side, width * d))
    return digest.hexdigest()
