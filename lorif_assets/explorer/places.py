"""What checkpoint and query set a question is about, where it names them or leaves them to be chosen."""

from lorif_assets.errors import NotStoredError
from lorif_assets.explorer.query_files import QueryFiles
from lorif_assets.explorer.questions import CheckpointQuestion, QuerySetQuestion
from lorif_assets.influences.catalogue import (
    ScoredCheckpoint,
    has_scored_queries,
    scored_checkpoints,
)
from lorif_assets.lake.lake import Lake


class Places:
    """The checkpoints and query sets with scores in a lake."""

    def __init__(self, lake: Lake, query_files: QueryFiles) -> None:
        self._lake, self._query_files = lake, query_files

    def of(self, question: QuerySetQuestion) -> tuple[str, str]:
        """Return the checkpoint and the query set that a question is about.

        Raises:
            NotStoredError: there are no scores of them.
        """
        at = self.checkpoint(question)
        if question.query_set is not None and question.query_set not in at.query_sets:
            raise NotStoredError(
                f"the checkpoint {at.name!r} has no scores of a query set {question.query_set!r}; it has those of "
                f"{', '.join(at.query_sets)}"
            )
        if question.query_set is not None:
            return at.name, question.query_set
        lost = self._query_files.lost(at.query_sets)
        kept = [one for one in at.query_sets if one not in lost] or [*at.query_sets]
        # Of a query file that changed, the queries are perhaps not scored yet.
        return at.name, next((one for one in kept if has_scored_queries(self._lake, at.name, one)), kept[0])

    def checkpoint(self, question: CheckpointQuestion) -> ScoredCheckpoint:
        """Return the checkpoint that a question is about, with the names of its query sets.

        Raises:
            NotStoredError: it has no scores.
        """
        checkpoints = scored_checkpoints(self._lake)
        if not checkpoints:
            raise NotStoredError("the lake has no scores yet; run `lorif materialize`, or materialize in Dagster's UI")
        if question.checkpoint is None:
            return checkpoints[-1]
        for one in checkpoints:
            if one.name == question.checkpoint:
                return one
        names = ", ".join(one.name for one in checkpoints)
        raise NotStoredError(
            f"no scores are stored of a checkpoint {question.checkpoint!r}; there are those of {names}"
        )
