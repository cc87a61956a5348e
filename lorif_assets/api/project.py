"""A project opened from Python: questions to its checkpoints, stored scores, and what is out of date."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from lorif_assets.api.answer import Attribution
from lorif_assets.api.rows import Rows, normalised_rows
from lorif_assets.api.stored_results import StoredResults
from lorif_assets.attribution.ask import (
    ModelCache,
    TopK,
    attributed_checkpoint,
    attributed_checkpoints,
    score_completion,
    score_questions,
    score_tokens,
)
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.scores.score_queries import QueryScores
from lorif_assets.config.settings import existing_settings_file
from lorif_assets.config.sources import Columns
from lorif_assets.data.content.query_objectives import ScalarRules
from lorif_assets.data.id_lists import ids_of_file
from lorif_assets.data.passages import with_passages
from lorif_assets.data.questions import Question, completion_question, conversation_question, row_question
from lorif_assets.errors import NotStoredError, SourceError
from lorif_assets.lake.data_tables import EXAMPLE_CONTENT, QUERY_EXAMPLES
from lorif_assets.lake.kept_reads import KeptReads
from lorif_assets.models.free_memory import host_memory
from lorif_assets.project import Project

if TYPE_CHECKING:
    from lorif_assets.influences.selection import Selection
    from lorif_assets.influences.set_influence import SetRanking


def open_project(path: str | PathLike[str] | None = None) -> "OpenProject":
    """Open the project of a settings file, or of the lorif.toml in a folder; without either, of $LORIF_CONFIG, ./lorif.toml or
    the demo.

    Nothing is read but the settings. What the file says later is not seen: open it again.

    Raises:
        SettingsError: the file is not there, none is found, or a setting is wrong.
    """
    return OpenProject(Project.open(existing_settings_file(Path(path) if path is not None else None)))


class OpenProject(StoredResults):
    """A project to ask. It reads the lake and never writes to it.

    The checkpoint that was asked last stays loaded until another is asked or `close` is called: use it in a `with` block,
    or close it. Its factors and its curvature stay in memory too, up to `batch.kept_mib`, so that later questions read next
    to nothing. A device is leased only while a question is answered; in between the model lies in the machine's memory,
    so that assets of the project can go on. Each question is answered from the lake of that moment: where data were
    attributed again meanwhile, the answer has them, and a checkpoint whose files were written again is loaded again.
    """

    def __init__(self, project: Project) -> None:
        """Take a project; `lorif_assets.open` opens one from its settings."""
        self._kept = KeptReads(_kept_bytes(project.settings.batch.kept_mib, host_memory()))
        super().__init__(replace(project, lake=replace(project.lake, kept=self._kept)))
        self._model_cache = ModelCache(self._project)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OpenProject({str(self._project.settings.base)!r})"

    def close(self) -> None:
        """Let go of the loaded checkpoint and of what is kept of the lake. The project can be asked again, which loads them."""
        self._model_cache.close()
        self._kept.clear()

    @property
    def project(self) -> Project:
        """What was opened: its settings, lake and checkpoints."""
        return self._project

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints that can be asked: those that are attributed, in order of step, then name."""
        return tuple(attributed_checkpoints(self._project))

    @property
    def query_columns(self) -> Columns:
        """Which columns of query files hold what, as the settings say."""
        return self._project.settings.queries.columns

    def attribute(
        self, prompt: str, completion: str, *, checkpoint: str | None = None, top_k: TopK = 10, tokens: int = 0
    ) -> Attribution:
        """Score every training example of the lake for one completion.

        Args:
            prompt: what the model was asked; it carries no loss, and may be empty.
            completion: what it said.
            checkpoint: its name; default: the newest that is attributed.
            top_k: proponents and opponents to list, or "all" for every example.
            tokens: proponents and opponents whose tokens are scored too, which takes passes of the model over each.

        Raises:
            SourceError: prompt or completion is no text, or the completion has no token that carries loss.
            MismatchError: no checkpoint is attributed, or factors, curvature and settings do not belong together.
            CheckpointError: the checkpoint is not there, not attributed or cannot be loaded.
            SettingsError: `top_k` is neither a positive number nor "all", or `tokens` no whole number from 0.
        """
        return self._answer(completion_question(prompt, completion), checkpoint, top_k, tokens)

    def attribute_chat(
        self, chat: object, *, checkpoint: str | None = None, top_k: TopK = 10, tokens: int = 0
    ) -> Attribution:
        """Score every training example of the lake for what the assistant says in a chat, through the chat template.

        Args:
            chat: a list of {role, content}, or a mapping of such `messages` and `tools`. The loss is on the assistant's
                messages, but those with `weight` 0.
            checkpoint: its name; default: the newest that is attributed.
            top_k: proponents and opponents to list, or "all" for every example.
            tokens: proponents and opponents whose tokens are scored too, which takes passes of the model over each.

        Raises:
            SourceError: it is no chat, or has no token that carries loss.
            MismatchError: no checkpoint is attributed, or factors, curvature and settings do not belong together.
            CheckpointError: the checkpoint is not there, not attributed, cannot be loaded or has no chat template.
            SettingsError: `top_k` is neither a positive number nor "all", or `tokens` no whole number from 0.
        """
        return self._answer(conversation_question(chat, "the chat"), checkpoint, top_k, tokens)

    def attribute_query(
        self, query: Mapping[str, Any], *, checkpoint: str | None = None, top_k: TopK = 10, tokens: int = 0
    ) -> Attribution:
        """Score every training example of the lake for a query as a line of a query file has it.

        Args:
            query: a text, prompt and completion, or messages, and one of the fields that say what is asked about: `span`,
                `against`, `weighted` or `scalar` (docs/sources.md: queries).
            checkpoint: its name; default: the newest that is attributed.
            top_k: proponents and opponents to list, or "all" for every example.
            tokens: proponents and opponents whose tokens are scored too, which takes passes of the model over each.

        Raises:
            SourceError: it cannot be used, or has no token that carries loss.
            MismatchError: no checkpoint is attributed, or factors, curvature and settings do not belong together.
            CheckpointError: the checkpoint is not there, not attributed or cannot be loaded.
            SettingsError: `top_k` is neither a positive number nor "all", or `tokens` no whole number from 0.
            UnsoundQueryError: a scalar fails.
        """
        question = row_question(query, ScalarRules.of(self._project.settings))
        return self._answer(question, checkpoint, top_k, tokens)

    def attribute_stored_query(
        self, query_set: str, query_id: str, *, checkpoint: str | None = None, top_k: TopK = 10, tokens: int = 0
    ) -> Attribution:
        """Score every training example of the lake for a stored query: to list more of them than its scores were stored of.

        Args:
            query_set: its name.
            query_id: of the query.
            checkpoint: its name; default: the newest that is attributed.
            top_k: proponents and opponents to list, or "all" for every example.
            tokens: proponents and opponents whose tokens are scored too, which takes passes of the model over each.

        Raises:
            NotStoredError: there is no such query.
            MismatchError: no checkpoint is attributed, or factors, curvature and settings do not belong together.
            CheckpointError: the checkpoint is not there, not attributed or cannot be loaded.
            SettingsError: `top_k` is neither a positive number nor "all".
        """
        rows = self._project.lake.read(
            QUERY_EXAMPLES, [*EXAMPLE_CONTENT, "objective"], query_set=query_set, query_id=query_id
        )
        if rows.is_empty():
            raise NotStoredError(f"the lake has no query {query_id!r} in the query set {query_set!r}; see `queries`")
        (row,) = rows.head(1).to_dicts()
        return self._answer(
            {name: value for name, value in row.items() if value is not None}, checkpoint, top_k, tokens
        )

    def attribute_tokens(
        self, query: Mapping[str, Any], shard: str, example_id: str, *, checkpoint: str | None = None
    ) -> pl.DataFrame:
        """Return what each token of one training example, and of a query, contributed to the score of the pair.

        Args:
            query: as for `attribute_query`.
            shard: that the example is in.
            example_id: its id.
            checkpoint: its name; default: the newest that is attributed.

        Returns:
            A row for every token: side (example or query), term, position, token_id, token, score (null where the token
            carries no loss), exact_score, the pair's score from uncompressed gradients, to which either side sums, and cut,
            what was cut of a side that is too long (else null).

        Raises:
            SourceError: the query cannot be used, or has no token that carries loss.
            NotStoredError: the example is not in the training data.
            MismatchError: no checkpoint is attributed, or factors, curvature and settings do not belong together.
            CheckpointError: the checkpoint is not there, not attributed or cannot be loaded.
        """
        question = row_question(query, ScalarRules.of(self._project.settings))
        name = attributed_checkpoint(self._project, checkpoint)
        return score_tokens(self._model_cache, name, question, shard, example_id).drop("query_id", "stored_score")

    def load(self, checkpoint: str | None = None) -> str:
        """Load a checkpoint ahead of the first question, and return its name; default: the newest that is attributed.

        One that is spread over several devices does not stay loaded between questions, and is left alone.

        Raises:
            MismatchError: no checkpoint is attributed.
            CheckpointError: the checkpoint is not there, not attributed or cannot be loaded.
        """
        name = attributed_checkpoint(self._project, checkpoint)
        if self._project.devices.per_checkpoint == 1:
            stored = StoredCheckpoint.read(self._project.lake, name, self._project.settings.recipe)
            with self._model_cache.leased(stored):
                pass
        return name

    def attribute_queries(
        self,
        queries: Rows,
        *,
        columns: Columns | None = None,
        checkpoint: str | None = None,
        top_k: TopK = 10,
        tokens: int = 0,
    ) -> Mapping[str, Attribution]:
        """Score every training example of the lake for several questions, in as few scans as memory allows.

        Args:
            queries: texts; mappings with text, prompt and completion, messages or input_ids; or a table of such rows.
            columns: which of their columns hold what; default: by their names, ids in `id`.
            checkpoint: its name; default: the newest that is attributed.
            top_k: proponents and opponents to list of each, or "all" for every example.
            tokens: proponents and opponents of each whose tokens are scored too.

        Returns:
            An answer by each question's id, in their order; where there is none, the id is the row's number from 0.

        Raises:
            SourceError: a question cannot be used, or two have one id.
            MismatchError: no checkpoint is attributed, or factors, curvature and settings do not belong together.
            CheckpointError: the checkpoint is not there, not attributed, cannot be loaded or has no chat template.
            SettingsError: `top_k` is neither a positive number nor "all".
        """
        name = attributed_checkpoint(self._project, checkpoint)
        read = normalised_rows(queries, columns, "queries", ScalarRules.of(self._project.settings))
        if read.rejected.num_rows:
            row, reason = (read.rejected[column][0].as_py() for column in ("row", "reason"))
            raise SourceError(f"query {row} cannot be scored: {reason}")
        rows = {row["example_id"]: row for row in read.examples.to_pylist()}
        if len(rows) < read.examples.num_rows:
            raise SourceError("two of the queries have the same id; give each one of its own")
        asked = read.examples.rename_columns({"example_id": "query_id"})
        answers = {}
        for scored in score_questions(self._model_cache, name, asked, top_k, tokens):
            for query_id in scored.summaries["query_id"]:
                answers[query_id] = self._attribution(scored, query_id, rows[query_id], name)
        return {query_id: answers[query_id] for query_id in rows}

    def _answer(self, question: Question, checkpoint: str | None, top_k: TopK, tokens: int) -> Attribution:
        name = attributed_checkpoint(self._project, checkpoint)
        scored = score_completion(self._model_cache, name, question, top_k, tokens)
        return self._attribution(scored, scored.summaries["query_id"][0], question, name)

    def _attribution(self, scored: QueryScores, query_id: str, question: Question, name: str) -> Attribution:
        with_texts = partial(with_passages, self._project.lake)
        return Attribution.of(scored, query_id, with_texts, question, name)

    def select(
        self,
        query_sets: str | Sequence[str] | Mapping[str, float] = (),
        *,
        top: int | str | None = None,
        bottom: int | str | None = None,
        weights: str | None = None,
        ids: Sequence[str] | PathLike[str] = (),
        exclude: bool = False,
        by: str | None = None,
        without_duplicates: bool = False,
        ranking: "SetRanking" = "plain",
        queries: Sequence[str] = (),
        query_weight: str | None = None,
        sources: Sequence[str] = (),
        checkpoint: str | None = None,
    ) -> "Selection":
        """Select training data by their influence on stored queries, or by name (docs/select.md); nothing is written yet.

        Args:
            query_sets: one, some, or a weight by name; default: the only one that is scored.
            top: how many of those that speak for the queries most: a number, or a share such as "10%".
            bottom: how many of those that speak against them most. Exactly one of `top`, `bottom`, `weights` and `ids` is
                given.
            weights: in place of leaving rows out, the name of a column for their weights.
            ids: of rows, each an id, or shard/id where several rows share one; or the path of a file of them, one a line.
            exclude: everything but these.
            by: a metadata column of the examples, of each of whose values as much is taken.
            without_duplicates: whether rows that nearly repeat one that is taken are left out.
            ranking: "plain", "relative" or "hybrid".
            queries: ids of those of them that count; default: all.
            query_weight: a metadata column of the queries, with numbers.
            sources: to select from; default: all.
            checkpoint: its name; default: the newest that is attributed.

        Raises:
            SettingsError: an argument is wrong, or they do not go together.
            NotStoredError: a query set is not scored at the checkpoint, no example has the column `by`, or an id is none.
            MismatchError: no checkpoint is attributed, or factors, curvature and settings do not belong together.
            CheckpointError: the checkpoint is not there, not attributed or cannot be loaded.
            SourceError: nothing of any source can be read, or not the file of ids.
        """
        from lorif_assets.influences.select_rows import select
        from lorif_assets.influences.wanted_rows import WantedRows

        if isinstance(ids, PathLike):
            ids = ids_of_file(Path(ids))
        names = [query_sets] if isinstance(query_sets, str) else query_sets
        wanted = WantedRows(
            query_sets=dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1.0),
            queries=tuple([queries] if isinstance(queries, str) else queries),
            query_weight=query_weight,
            ranking=ranking,
            top=top,
            bottom=bottom,
            weights=weights,
            ids=tuple([ids] if isinstance(ids, str) else ids),
            exclude=exclude,
            by=by,
            without_duplicates=without_duplicates,
            sources=tuple([sources] if isinstance(sources, str) else sources),
            checkpoint=checkpoint,
        )
        return select(self._model_cache, wanted)


def _kept_bytes(kept_mib: int | None, free: int) -> int:
    """Return how much is kept of the lake, of so many free bytes: a quarter, or what the setting says, half at most."""
    return free // 4 if kept_mib is None else min(kept_mib << 20, free // 2)
