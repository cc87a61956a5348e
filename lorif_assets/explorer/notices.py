"""What is to be known beside an answer: that what it rests on has changed since, and what brings it up to date."""

from functools import lru_cache
from pathlib import Path

from lorif_assets.config.recipe import Recipe
from lorif_assets.explorer.checkpoint_folders import CheckpointFolders
from lorif_assets.explorer.query_files import QueryFiles
from lorif_assets.influences.out_of_date import changed_since, up_to_date_by
from lorif_assets.lake.attribution_tables import (
    CHECKPOINTS,
    GRADIENT_FACTORS,
    KFAC_BASES,
    PRECONDITIONER_TABLES,
    QUERY_SUMMARIES,
)
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.remembered_rows import RememberingLake

COMPARED_TABLES = (
    TRAINING_EXAMPLES,
    QUERY_EXAMPLES,
    CHECKPOINTS,
    KFAC_BASES,
    GRADIENT_FACTORS,
    *PRECONDITIONER_TABLES,
    QUERY_SUMMARIES,
)
"""The tables that tell whether scores are up to date."""
_KEPT = 256


class Notices:
    """Compares the settings and the lake with what answers rest on: the lake, once for each version of its tables."""

    def __init__(
        self,
        lake: RememberingLake,
        recipe: Recipe,
        settings: Path | None,
        query_files: QueryFiles,
        checkpoint_folders: CheckpointFolders,
    ) -> None:
        """Take the tables, the recipe, the settings file as it is now, the query files and the checkpoints' folders."""
        self._lake, self._recipe, self._settings = lake, recipe, settings
        self._query_files, self._checkpoint_folders = query_files, checkpoint_folders
        self._text = _text(settings)
        self._changed = lru_cache(_KEPT)(self._changed_at)

    def notice(self, checkpoint: str, query_set: str = "") -> str | None:
        """Return a sentence where scores are out of date, or their query set or checkpoint has no file any more.

        Without a query set, it is of a question of one's own.
        """
        of_set = self._query_files.notice(query_set) if query_set else None
        return (
            self.of_settings()
            or of_set
            or self._checkpoint_folders.notice(checkpoint)
            or self._changed(checkpoint, query_set, tuple(self._lake.version(schema) for schema in COMPARED_TABLES))
        )

    def of_settings(self) -> str | None:
        """Return a sentence where the settings file is another one than at the start."""
        if _text(self._settings) == self._text:
            return None
        return (
            f"{self._settings} changed since the explorer was started, and all answers are by what it said then: start the "
            "explorer again"
        )

    def _changed_at(self, checkpoint: str, query_set: str, versions: tuple[str | None, ...]) -> str | None:
        del versions
        changed = changed_since(self._lake, self._recipe, checkpoint, query_set)
        return changed and f"{changed[0].upper()}{changed[1:]}: {up_to_date_by(checkpoint)}"


def joined(*notices: str | None) -> str | None:
    """Return several sentences as one text, without a full stop at the end; None where there is none."""
    return ". ".join(filter(None, notices)) or None


def _text(settings: Path | None) -> bytes | None:
    try:
        return settings.read_bytes() if settings else None
    except OSError:
        return None
