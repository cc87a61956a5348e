"""Fixed random-sign projections P_in [I, d1] and P_out [O, d2] of each tracked layer (docs/method.md: stage 1).

The signs are the bits of SHAKE-256 over (seed, layer name, side): the same on every device, machine and library
version. A side that the projection leaves as it is has no matrix (P = identity). An accelerator holds the bare signs in
BF16 and divides by sqrt(d) after the product.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics import accelerators
from lorif_assets.mathematics.gradients.layers import TrackedLayer
from lorif_assets.mathematics.matrix_products import product, sign_product

_SCHEME = b"lorif-signs-1"


@dataclass(frozen=True, kw_only=True)
class Projection:
    """How the two sides of every layer are projected: by `factor`, or to at most `max_width` numbers; one of the two is set.

    With a factor f, a side of w numbers is projected to max(1, w // f), but with f = 1 not at all. With a largest width m,
    a wider side is projected to m, and others not at all; with `max_factor` too, to no less than w // max_factor. Sides of
    up to `whole` numbers are not projected either. Equal projections are equal objects.

    Raises:
        ValueError: both or neither are set, or the one that is set is below 1.
    """

    factor: int | None = None
    max_width: int | None = None
    max_factor: int | None = None
    seed: int
    whole: int = 0

    def __post_init__(self) -> None:
        if (self.factor is None) == (self.max_width is None):
            raise ValueError(
                f"a projection has a factor or a largest width, found factor {self.factor} and largest width "
                f"{self.max_width}; set one of the two"
            )
        if self.factor is not None and self.factor < 1:
            raise ValueError(f"the projection factor must be at least 1, found {self.factor}")
        if self.max_width is not None and self.max_width < 1:
            raise ValueError(f"the largest projected width must be at least 1, found {self.max_width}")

    def __str__(self) -> str:
        if self.max_width is None:
            return f"f = {self.factor}"
        least = f", max_factor = {self.max_factor}" if self.max_factor else ""
        return f"max_width = {self.max_width}{least}"

    @property
    def keeps_every_width(self) -> bool:
        """Whether no layer is projected, whatever its widths."""
        return self.factor == 1

    def width(self, side: int) -> int:
        """Return the projected width of a side of `side` numbers."""
        if side <= self.whole:
            return side
        if self.max_width is not None:
            return min(side, max(self.max_width, side // self.max_factor if self.max_factor else 1))
        return max(1, side // (self.factor or 1))

    def is_identity(self, side: int) -> bool:
        """Whether a side of `side` numbers stays as it is. With a factor above 1 none does, not even one of width 1."""
        return side <= self.whole or (self.factor == 1 if self.max_width is None else self.width(side) == side)

    def shape(self, layer: TrackedLayer) -> tuple[int, int]:
        """Return the projected widths (d1, d2) of a layer."""
        return self.width(layer.d_in), self.width(layer.d_out)


@dataclass(frozen=True)
class LayerProjection:
    """The two projections of one layer; None stands for the identity, a BF16 matrix for its signs alone."""

    layer: TrackedLayer
    d1: int
    d2: int
    p_in: Float[Tensor, "I d1"] | None
    p_out: Float[Tensor, "O d2"] | None

    def to(self, device: torch.device, dtype: torch.dtype) -> "LayerProjection":
        """Return the same projection on another device, in another floating type; in place of FP32 an accelerator has signs."""
        has_signs = accelerators.is_accelerator(device) and dtype == torch.float32

        def moved(p: Tensor | None) -> Tensor | None:
            if p is None or p.dtype == torch.bfloat16:
                return p if p is None else p.to(device)
            return p.sign().to(torch.bfloat16).to(device) if has_signs else p.to(device=device, dtype=dtype)

        return LayerProjection(self.layer, self.d1, self.d2, moved(self.p_in), moved(self.p_out))

    def apply(self, gradients: Float[Tensor, "n I O"]) -> Float[Tensor, "n d1 d2"]:
        """Return P_in^T G P_out of gradients that were formed without projection."""
        rows = gradients if self.p_out is None else projected(gradients, self.p_out)
        return rows if self.p_in is None else projected(rows.mT, self.p_in).mT


def projected(x: Float[Tensor, "*batch width"], p: Float[Tensor, "width d"]) -> Float[Tensor, "*batch d"]:
    """Return x P in FP32 at least, for one of the two matrices of a layer's projection, as `LayerProjection.to` gives it."""
    if p.dtype == torch.bfloat16:
        return sign_product(x, p).mul_(p.shape[1] ** -0.5)
    return product(x.to(torch.promote_types(x.dtype, p.dtype)), p)


def _sign_bytes(seed: int, layer: str, side: str, count: int) -> bytes:
    stream = hashlib.shake_256(b"\0".join((_SCHEME, str(seed).encode(), layer.encode(), side.encode())))
    return stream.digest((count + 7) // 8)


def random_signs(seed: int, layer: str, side: str, width: int, d: int) -> Float[Tensor, "width d"]:
    """Return a [width, d] matrix of +-1/sqrt(d), in FP32 on the CPU, that depends on the arguments alone."""
    packed = torch.frombuffer(bytearray(_sign_bytes(seed, layer, side, width * d)), dtype=torch.uint8)
    bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
    signs = bits.flatten()[: width * d].to(torch.float32).mul_(2).sub_(1)
    return signs.reshape(width, d).div_(d**0.5)


def layer_projection(layer: TrackedLayer, projection: Projection) -> LayerProjection:
    """Return the matrices of one layer's projection."""

    def side(name: str, width: int, d: int) -> Tensor | None:
        return None if projection.is_identity(width) else random_signs(projection.seed, layer.name, name, width, d)

    d1, d2 = projection.shape(layer)
    return LayerProjection(layer, d1, d2, side("in", layer.d_in, d1), side("out", layer.d_out, d2))


def shapes_of_projection(layer: TrackedLayer, projection: Projection) -> LayerProjection:
    """Return one layer's projection without its numbers: matrices on the meta device."""

    def side(width: int, d: int) -> Tensor | None:
        return None if projection.is_identity(width) else torch.empty(width, d, device="meta")

    d1, d2 = projection.shape(layer)
    return LayerProjection(layer, d1, d2, side(layer.d_in, d1), side(layer.d_out, d2))


def fingerprint(layers: Iterable[TrackedLayer], projection: Projection) -> str:
    """Return a hash of every projection's shape and signs: equal exactly when two sets of projections are equal."""
    digest = hashlib.blake2b(_SCHEME, digest_size=16)
    for layer in layers:
        d1, d2 = projection.shape(layer)
        digest.update(f"|{layer.name}|{layer.d_in}x{d1}|{layer.d_out}x{d2}|".encode())
        for side, width, d in (("in", layer.d_in, d1), ("out", layer.d_out, d2)):
            if not projection.is_identity(width):
                digest.update(_sign_bytes(projection.seed, layer.name, side, width * d))
    return digest.hexdigest()
