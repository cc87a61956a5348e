"""Some of the queries of a set, as a page lists them: a set may have thousands."""

from dataclasses import dataclass

from lorif_assets.influences.catalogue import ScoredQuery, queries_of, scored_rows
from lorif_assets.lake.lake import Lake


@dataclass(frozen=True)
class QueryPage:
    """Adjacent queries of a set, those from `offset` on of the `n_found` that were searched for, in the order of their file.

    `n_queries` are in the set. `before` and `after` are the ids of the neighbours of the query that the page was made around;
    without one, the first query is the one after.
    """

    queries: tuple[ScoredQuery, ...] = ()
    offset: int = 0
    n_found: int = 0
    n_queries: int = 0
    before: str | None = None
    after: str | None = None

    @property
    def end(self) -> int:
        """Where the next page begins."""
        return self.offset + len(self.queries)


def found_queries(lake: Lake, checkpoint: str, query_set: str, text: str, offset: int, limit: int) -> QueryPage:
    """Return a page of the queries that say a text, or have it in their id, whatever its case.

    Raises:
        NotStoredError: the set has no scores at the checkpoint.
    """
    rows = scored_rows(lake, checkpoint, query_set)
    if not text:
        return QueryPage(tuple(queries_of(rows.slice(offset, limit))), offset, rows.height, rows.height)
    wanted = text.casefold()
    found = [one for one in queries_of(rows) if wanted in one.text.casefold() or wanted in one.query_id.casefold()]
    return QueryPage(tuple(found[offset : offset + limit]), offset, len(found), rows.height)


def queries_around(lake: Lake, checkpoint: str, query_set: str, query_id: str | None, limit: int) -> QueryPage:
    """Return the page of `limit` queries that one is on, the first where there is no such query.

    Raises:
        NotStoredError: the set has no scores at the checkpoint.
    """
    rows = scored_rows(lake, checkpoint, query_set)
    ids = rows["query_id"]
    at = -1 if query_id is None else next(iter((ids == query_id).arg_true()), -1)
    offset = max(at, 0) // limit * limit
    return QueryPage(
        queries=tuple(queries_of(rows.slice(offset, limit))),
        offset=offset,
        n_found=rows.height,
        n_queries=rows.height,
        before=ids[at - 1] if at > 0 else None,
        after=ids[at + 1] if at + 1 < rows.height else None,
    )
