"""Which of the checkpoints that are found the settings want attributed."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from lorif_assets.errors import CheckpointError, SettingsError
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.fine_tunes import trained_from


def active_checkpoints(
    choice: str | Sequence[str], found: Sequence[CheckpointFiles], faults: Mapping[str, str] | None = None
) -> list[str]:
    """Return the names of the checkpoints that `active.checkpoints` chooses, in order.

    Args:
        choice: "auto", "newest", "all", or names.
        found: the complete checkpoints that there are, in order of step.
        faults: by name, why others cannot be used.

    Raises:
        SettingsError: one that is named does not exist, or cannot be used.
    """
    names = [one.name for one in found]
    if choice == "all":
        return names
    if choice == "newest":
        return names[-1:]
    if choice == "auto":
        return [one.name for one in _whole_run(found)]
    return chosen_names("active.checkpoints", choice, names, faults or {})


def chosen_names(setting: str, chosen: Collection[str], found: Sequence[str], faults: Mapping[str, str]) -> list[str]:
    """Return those of the names that were found that a setting chooses, in the order in which they were found.

    Args:
        setting: its name.
        chosen: the names that it holds.
        found: the names that there are.
        faults: by name, why others cannot be used.

    Raises:
        SettingsError: one that is chosen does not exist, or cannot be used.
    """
    for name in chosen:
        if name not in found:
            why = f"cannot be used: {faults[name]}" if name in faults else "does not exist"
            raise SettingsError(f"`{setting}` names {name!r}, which {why}; found {', '.join(found) or 'none'}")
    return [name for name in found if name in chosen]


def comparable_base(checkpoint: CheckpointFiles, found: Sequence[CheckpointFiles]) -> CheckpointFiles | None:
    """Return the base model that a checkpoint was fine-tuned from, if it is one of those found and reads with its tokenizer."""
    for base in (one for one in found if one.place == "base"):
        if trained_from(base.path, [checkpoint]) and _read_alike(base, checkpoint):
            return base
    return None


def _whole_run(found: Sequence[CheckpointFiles]) -> list[CheckpointFiles]:
    """Return the newest checkpoint; of a fine-tune, behind its base model and the first checkpoint that was saved of it.

    Both stay the same as training goes on, so that a new checkpoint costs no more than its own attribution.
    """
    if not found:
        return []
    newest = found[-1]
    base = comparable_base(newest, found)
    if base is None:
        return [newest]
    first = next(one for one in found if trained_from(base.path, [one]) and _read_alike(one, newest))
    return list({one.name: one for one in (base, first, newest)}.values())


def _read_alike(one: CheckpointFiles, other: CheckpointFiles) -> bool:
    # A checkpoint whose tokenizer cannot be found is refused where it is recorded.
    with suppress(CheckpointError, OSError):
        return one.tokenizer_folder == other.tokenizer_folder or one.tokenizer_hash() == other.tokenizer_hash()
    return False
