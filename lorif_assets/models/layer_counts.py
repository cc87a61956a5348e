"""Layers that a checkpoint's files hold, and its configuration does not count: the model would be cut short in silence."""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"\.\d+(?=\.)")


def layers_left_out(unexpected: Iterable[str], weights: Iterable[str]) -> list[str]:
    """Return the weights that a model has no place for and that differ from one of its own by numbers alone, sorted.

    Args:
        unexpected: names of weights in a checkpoint's files that were not loaded.
        weights: names of the model's own.
    """
    own = {_LAYER.sub(".N", name) for name in weights}
    return sorted(name for name in unexpected if _LAYER.search(name) and _LAYER.sub(".N", name) in own)
