"""What an opened project has stored: queries, scores, and what is out of date."""

import polars as pl

from lorif_assets.attribution.scores.stored_rankings import Ranking, check_ranking, rows_beside_scores, stored_ranking
from lorif_assets.data.passages import passage_text
from lorif_assets.errors import MismatchError
from lorif_assets.lake.attribution_tables import EXACT_SCORES, QUERY_SCORES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.project import Project


class StoredResults:
    """What is read of a project's lake as it is; nothing is computed."""

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def queries(self) -> pl.DataFrame:
        """The stored queries: query_set, query_id, text (prompt and completion) and metadata (JSON)."""
        rows = self._project.lake.read(QUERY_EXAMPLES).sort("query_set", "row")
        texts = pl.Series("text", [passage_text(row) for row in rows.iter_rows(named=True)], pl.String)
        return rows.select("query_set", "query_id", texts, "metadata")

    def scores(self, checkpoint: str, query_set: str, *, ranking: Ranking = "plain") -> pl.DataFrame:
        """Return the stored scores of a query set at a checkpoint: query_id, side, rank, score, shard, example_id.

        Args:
            checkpoint: its name.
            query_set: its name.
            ranking: "plain", by score; or "relative", by relative influence, which is then a column `relative_score`.

        Raises:
            MismatchError: there are none.
            SettingsError: there is no such ranking.
        """
        check_ranking(ranking)
        rows = stored_ranking(self._project.lake, checkpoint, query_set, ranking)
        if rows.is_empty() and ranking == "relative" and not self.scores(checkpoint, query_set).is_empty():
            raise MismatchError(
                f"the scores of {query_set!r} at {checkpoint!r} were stored before there was a relative ranking; materialize "
                "`query_scores` for them again"
            )
        if rows.is_empty():
            stored = self._project.lake.read(QUERY_SCORES, ["checkpoint", "query_set"]).unique().sort(pl.all())
            there = ", ".join(f"{name} {scored}" for name, scored in stored.iter_rows())
            raise MismatchError(
                f"the lake has no scores of the query set {query_set!r} at the checkpoint {checkpoint!r}; it has "
                f"{there or 'none at all'}. Materialize `query_scores`"
            )
        relative = ["relative_score"] if ranking == "relative" else []
        columns = ["query_id", "side", "rank", *relative, "score", "shard", "example_id"]
        return rows.select(columns).sort("query_id", "side", "rank")

    def exact_scores(self, checkpoint: str, query_set: str) -> pl.DataFrame:
        """Return the leading examples of a query set at a checkpoint as whole gradients rank them.

        Args:
            checkpoint: its name.
            query_set: its name.

        Returns:
            query_id, side, rank, score, relative_score, self_influence, stored_rank, stored_score, shard and example_id, by
            rank.

        Raises:
            MismatchError: there are none that belong to the stored scores.
        """
        rows = rows_beside_scores(self._project.lake, EXACT_SCORES, checkpoint, query_set)
        if rows.is_empty():
            raise MismatchError(
                f"the lake has no exact scores of {query_set!r} at {checkpoint!r} that belong to the scores it has; set "
                "`exact_scores.enabled`, and materialize `exact_scores`"
            )
        columns = [
            "query_id",
            "side",
            "rank",
            "score",
            "relative_score",
            "self_influence",
            "stored_rank",
            "stored_score",
        ]
        return rows.select(*columns, "shard", "example_id").sort("query_id", "side", "rank")

    def status(self) -> pl.DataFrame:
        """Return what is missing or out of date, a row for each asset in use, upstream first, as `lorif status` shows it.

        An asset is judged by what is stored above it: the first one that is not up to date is to be updated first.
        Dagster is imported for it.

        Returns:
            asset, missing and stale (numbers of partitions), reason and partition (of the first; null where all is up to
            date).

        Raises:
            SettingsError: the settings name no source, or a checkpoint or query set that is not there.
            SourceError: a source cannot be looked at.
        """
        from lorif_assets.api.status import project_status

        return project_status(self._project).assets
