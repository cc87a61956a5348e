"""Weights that a checkpoint's files and its configuration do not agree on: one would attribute another model in silence."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)
_LAYER = re.compile(r"\.\d+(?=\.)")


def refuse_unmatched(missing: Collection[str], unexpected: Collection[str], own: Iterable[str], folder: Path) -> None:
    """Refuse a model that was loaded without weights of its own, or without layers that its files hold; warn of other weights.

    Args:
        missing: names of the model's weights that the files do not hold.
        unexpected: names of weights in the files that the model has no place for.
        own: names of the model's weights.
        folder: the checkpoint.

    Raises:
        CheckpointError: it is one of these.
    """
    if missing:
        instead = f" and holds {min(unexpected)} instead" if unexpected else ""
        raise CheckpointError(
            f"{folder} holds no weight for {min(missing)} ({len(missing)} such), which would be random{instead}; is "
            "config.json that of these weights, and was the model itself saved, without what a trainer wraps it in?"
        )
    if left_out := layers_left_out(unexpected, own):
        raise CheckpointError(
            f"{folder} holds weights of more layers than its config.json says ({left_out[0]}, {len(left_out)} such), "
            "and would be attributed without them; is config.json that of these weights? Else save the model as it is used"
        )
    if unexpected:
        _LOG.warning(
            "%s holds %d weight(s) that the model of its config.json does not have, and is attributed without them: %s ...",
            folder,
            len(unexpected),
            min(unexpected),
        )


def refuse_other_shapes(files: Iterable[Path], own: "Mapping[str, Tensor]", folder: Path) -> None:
    """Refuse weights whose shapes are not those of a model's; names that are in one of them alone do not count.

    Args:
        files: the safetensors files of the weights.
        own: the model's weights by name, which need no memory.
        folder: the checkpoint.

    Raises:
        CheckpointError: there are such weights.
    """
    shapes = {name: shape for file in files for name, shape in _shapes(file).items() if name in own}
    if differing := [(name, shape) for name, shape in shapes.items() if shape != tuple(own[name].shape)]:
        name, shape = min(differing)
        raise CheckpointError(
            f"{folder} holds {name} as {_by(shape)}, and its config.json describes {_by(own[name].shape)} ({len(differing)} "
            "such weights); is config.json that of these weights? Where tokens were added, save the model as it is used"
        )


def layers_left_out(unexpected: Iterable[str], weights: Iterable[str]) -> list[str]:
    """Return the weights that a model has no place for and that differ from one of its own by numbers alone, sorted.

    Args:
        unexpected: names of weights in a checkpoint's files that were not loaded.
        weights: names of the model's own.
    """
    own = {_LAYER.sub(".N", name) for name in weights}
    return sorted(name for name in unexpected if _LAYER.search(name) and _LAYER.sub(".N", name) in own)


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights in a file; none of one that is damaged, or no safetensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return {}


def _by(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
