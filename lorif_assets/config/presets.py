"""Where fields of the recipe that are not set take their values from."""

from collections.abc import Collection, Mapping
from typing import Final

AUTO: Final = "auto"
"""A field's value where the model decides: its layers' shapes, before anything is computed."""

# The default of before there was "auto": sides divided by 8, the bytes of 16 components.
_WHITENED: Mapping[str, object] = {"max_width": None, "bytes_per_example": None}
# The published form (arXiv 2601.21929): rank-one BF16 factors, a truncated SVD, damping by its leading eigenvalues.
_PAPER: Mapping[str, object] = {
    **_WHITENED,
    "curvature": "svd",
    "rank": 1,
    "factor_dtype": "bf16",
    "r": 256,
    "refinements": 1,
    "damping_rule": "leading",
    "damping": 0.1,
    "curvature_form": "truncated",
    "averaged_checkpoints": 1,
}
PRESETS: Mapping[object, Mapping[str, object]] = {AUTO: {}, "whitened": _WHITENED, "paper": _PAPER}


def with_preset(fields: Mapping[str, object], whitening: Collection[str]) -> dict[str, object]:
    """Return fields of a recipe with those of their preset, and nothing left to the model that is chosen by hand.

    A width by hand is `projection_factor` or `max_width`; a rank by hand is `rank`, `rank_by_layer` or `bytes_per_example`.

    Args:
        fields: those that are set.
        whitening: the curvatures whose bases show what a component is worth; with others nothing is left to the model.
    """
    found = {**PRESETS.get(fields.get("preset", AUTO), {}), **fields}
    by_hand = found.get("curvature", "ekfac") not in whitening
    if by_hand or "projection_factor" in found:
        found.setdefault("max_width", None)
    if by_hand or {"rank", "rank_by_layer"} & found.keys():
        found.setdefault("bytes_per_example", None)
    return found
