"""Verdicts on scores, found once for each version of what they rest on: that takes seconds where there are many examples."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import LorifError
from lorif_assets.explorer.notices import COMPARED_TABLES
from lorif_assets.influences.trust import CheckOutcome, Trust, trust
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES
from lorif_assets.lake.remembered_rows import RememberingLake

_TABLES = (*COMPARED_TABLES, REJECTED, EVALUATION_FIGURES)
_AT_ONCE_SECONDS = 0.3
_KEPT = 256

_Key = tuple[object, ...]


class Verdicts:
    """The verdicts of a project, by what they are on and the versions of the tables that they rest on."""

    def __init__(self, lake: RememberingLake, recipe: Recipe) -> None:
        """Take the tables and the recipe of the settings."""
        self._lake, self._recipe = lake, recipe
        self._found: dict[_Key, Future[Trust]] = {}
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verdicts")

    def verdict(self, checkpoint: str, query_set: str, checks: Sequence[CheckOutcome]) -> Trust:
        """Return the verdict on the scores of a query set at a checkpoint, given what the checks said."""
        return self._finding(checkpoint, query_set, checks).result()

    def verdict_at_once(self, checkpoint: str, query_set: str, checks: Sequence[CheckOutcome]) -> Trust | None:
        """Return it, or None where it is not found within a fraction of a second, which goes on, or cannot be found."""
        try:
            return self._finding(checkpoint, query_set, checks).result(_AT_ONCE_SECONDS)
        except (TimeoutError, LorifError):
            return None

    def _finding(self, checkpoint: str, query_set: str, checks: Sequence[CheckOutcome]) -> Future[Trust]:
        versions = tuple(self._lake.version(schema) for schema in _TABLES)
        key = (checkpoint, query_set, tuple(checks), versions)
        with self._lock:
            found = self._found.get(key)
            if found is None or (found.done() and found.exception()):
                while len(self._found) >= _KEPT:
                    del self._found[next(iter(self._found))]
                self._found[key] = self._thread.submit(trust, self._lake, self._recipe, checkpoint, query_set, checks)
            return self._found[key]
