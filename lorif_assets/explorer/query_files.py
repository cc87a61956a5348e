"""Which stored query sets no query file has any more: after a file was renamed, its set has scores by both names."""

from collections.abc import Iterable

from lorif_assets.config.settings import Settings
from lorif_assets.data.query_files import survey_queries
from lorif_assets.errors import SourceError
from lorif_assets.stores.object_store import is_store_url


class QueryFiles:
    """The query files of a project, looked at whenever something is asked: there are few, and they change unseen."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the settings that say where they are; without any, nothing is known of them."""
        self._settings = settings

    def lost(self, query_sets: Iterable[str]) -> frozenset[str]:
        """Return the query sets without a file; none where the files cannot be looked at, or are in an object store: a page
        does not wait for one.
        """
        if self._settings is None or is_store_url(self._settings.resolve(self._settings.queries.path)):
            return frozenset()
        try:
            found = survey_queries(self._settings)
        except (OSError, SourceError):
            return frozenset()
        return frozenset(query_sets) - found.files.keys() - found.faults.keys()

    def notice(self, query_set: str) -> str | None:
        """Return a sentence about a query set that has no file; None of one that has."""
        if not self.lost([query_set]):
            return None
        return (
            f"No query file is called {query_set} any more: its queries and scores are those of the file as it was, and follow "
            "no change"
        )
