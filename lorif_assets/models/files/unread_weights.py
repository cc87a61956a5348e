"""What is said of checkpoints whose folders hold more weights than they are loaded from: which ones, and what to do."""

from collections.abc import Iterable, Sequence

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.weight_files import in_short

_SAFETENSORS = ".safetensors"


def unread_notes(checkpoints: Iterable[CheckpointFiles]) -> list[str]:
    """Return a sentence for each kind of folder with weights that are not read."""
    alike: dict[tuple[str, str], list[CheckpointFiles]] = {}
    for checkpoint in checkpoints:
        try:
            # Where none are taken, the checkpoint is not complete.
            if (unread := checkpoint.unread_files) and (taken := _taken(checkpoint)):
                alike.setdefault((taken, in_short(unread)), []).append(checkpoint)
        except CheckpointError:
            # It is not complete, which says why.
            continue
    return [_unread(*of_kind, found) for of_kind, found in alike.items()]


def _taken(checkpoint: CheckpointFiles) -> str:
    if checkpoint.adapter:
        return f"{checkpoint.adapter.weights.name} on {checkpoint.base.path}"
    return in_short([file.name for file in checkpoint.taken_files])


def _unread(taken: str, unread: str, checkpoints: Sequence[CheckpointFiles]) -> str:
    first, more = checkpoints[0].path, len(checkpoints) - 1
    named = f"{first} and {more} more are" if more else f"{first} is"
    # Pickles are the same weights once more, as a rule; of safetensors, one may be older than the other.
    advice = f" If these are the newer ones, remove {taken}" if _SAFETENSORS in unread and "/" not in taken else ""
    return f"{named} loaded from {taken}; other weights beside are not read: {unread}.{advice}"
