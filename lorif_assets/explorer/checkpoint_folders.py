"""Which checkpoints with scores have no files any more: a trainer deletes early ones, and their scores stay."""

from collections.abc import Iterable
from pathlib import Path

from lorif_assets.errors import LorifError
from lorif_assets.explorer.background_look import BackgroundLook
from lorif_assets.models.checkpoints import Checkpoints

_KEPT_SECONDS = 10.0


class CheckpointFolders:
    """The checkpoints of a project in a folder of this machine, looked at while the explorer runs.

    Those of a hub, a registry or an object store are left alone: nobody deletes them to make room.
    """

    def __init__(self, checkpoints: Checkpoints | None = None) -> None:
        """Take where they are; None: nobody knows."""
        is_local = checkpoints is not None and Path(checkpoints.location).is_absolute()
        self._checkpoints = checkpoints if is_local else None
        self._look: BackgroundLook[frozenset[str] | None] = BackgroundLook(
            self._found, None, _KEPT_SECONDS, "checkpoints"
        )

    def lost(self, names: Iterable[str], patience: float = 0.0) -> frozenset[str]:
        """Return the checkpoints without files; none where the folder was not looked at yet, or cannot be.

        Args:
            names: of checkpoints with scores.
            patience: seconds that this may take while somebody looks.
        """
        found = self._look.found(patience) if self._checkpoints else None
        return frozenset() if found is None else frozenset(names) - found

    def notice(self, checkpoint: str) -> str | None:
        """Return a sentence about a checkpoint that has no files; None of one that has."""
        if not self.lost([checkpoint]):
            return None
        return f"The files of the checkpoint {checkpoint} are gone: its scores stay, and nothing new can be asked of it"

    def _found(self) -> frozenset[str] | None:
        if self._checkpoints is None:
            return None
        try:
            return frozenset(one.name for one in self._checkpoints.find())
        except (LorifError, OSError):
            return None if Path(self._checkpoints.path).is_dir() else frozenset()
