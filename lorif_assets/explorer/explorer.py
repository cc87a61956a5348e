"""The explorer itself: each question, answered from the tables or by the warm model. Pages, JSON and MCP are its faces."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import polars as pl

from lorif_assets.api.project import open_project
from lorif_assets.attribution.scores.score_rows import HIGHEST, LOWEST
from lorif_assets.attribution.scores.stored_rankings import RANKINGS, Ranking, rows_beside_scores, stored_ranking
from lorif_assets.config.methods import MethodName, method_title
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import existing_settings_file
from lorif_assets.data.passages import Part
from lorif_assets.errors import NotStoredError
from lorif_assets.explorer.answers import Answers, Computed, Progressed, member_line
from lorif_assets.explorer.checkpoint_folders import CheckpointFolders
from lorif_assets.explorer.latest_checks import LatestChecks
from lorif_assets.explorer.notices import Notices, joined
from lorif_assets.explorer.places import Places
from lorif_assets.explorer.query_files import QueryFiles
from lorif_assets.explorer.questions import (
    AskedQuestion,
    ExampleQuestion,
    GroupsQuestion,
    InfluencesQuestion,
    MovementQuestion,
    OverviewQuestion,
    QueriesQuestion,
    QuerySetQuestion,
    Question,
    RankingQuestion,
    TokensQuestion,
    TrustQuestion,
    WorkQuestion,
)
from lorif_assets.explorer.replies import Groups, Influences, Overview, Queries, QueryMovement, StoredMethod
from lorif_assets.explorer.selecting import Selecting
from lorif_assets.explorer.selections import SelectionFolder
from lorif_assets.explorer.verdicts import Verdicts
from lorif_assets.influences.catalogue import (
    ScoredQuery,
    scored_checkpoints,
    scored_methods,
    scored_query,
)
from lorif_assets.influences.exact_ranks import exact_ranks
from lorif_assets.influences.example import Example, example
from lorif_assets.influences.groups import grouped, stored_noise_share
from lorif_assets.influences.lengths import by_length
from lorif_assets.influences.listing import InfluenceList, influence_list
from lorif_assets.influences.movement import movement
from lorif_assets.influences.query_page import found_queries
from lorif_assets.influences.ranked import Ranked, Side, ranked_answer, ranked_query
from lorif_assets.influences.trust import Trust
from lorif_assets.lake.attribution_tables import TOKEN_SCORES
from lorif_assets.lake.remembered_rows import RememberingLake
from lorif_assets.pages.token_colours import PairTokens, pair_tokens

# What the page about trust waits for what the checks said last.
_PATIENCE_SECONDS = 2.0


class Explorer:
    """A project to walk through. It reads and computes; it writes selections alone, where that was allowed."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        lake: RememberingLake,
        answers: Answers,
        dagster_home: Path | None = None,
        framed_by: str = "",
        selections: Path | None = None,
        settings: Path | None = None,
        query_files: QueryFiles | None = None,
        checkpoint_folders: CheckpointFolders | None = None,
    ) -> None:
        """Take what questions are answered from.

        Args:
            name: of the project, to show.
            recipe: of its settings.
            lake: its tables.
            answers: what has to be computed.
            dagster_home: where checks keep what they said.
            framed_by: address of a server beside those of this machine that may show reports in a frame: MLflow's.
            selections: the folder that selections of training data may be written into; None: they may not.
            settings: the file that they were read from, to be seen when it changes.
            query_files: those of the project, to tell stored query sets that have none any more; None: nobody knows them.
            checkpoint_folders: the same of checkpoints.
        """
        self.framed_by = framed_by
        self.name, self.recipe, self.lake, self.answers = name, recipe, lake, answers
        self.query_files, self.checkpoint_folders = (
            query_files or QueryFiles(),
            checkpoint_folders or CheckpointFolders(),
        )
        self.places = Places(lake, self.query_files)
        self.selecting = Selecting(self.places, answers, SelectionFolder(selections))
        self.notices = Notices(lake, recipe, settings, self.query_files, self.checkpoint_folders)
        self._checks = LatestChecks(dagster_home)
        self._verdicts = Verdicts(lake, recipe)

    @classmethod
    def open(cls, dagster_home: Path | None = None, config: Path | None = None, selections: Path | None = None) -> Self:
        """Open the project of the settings; arguments are those of an explorer.

        Raises:
            SettingsError: there is no settings file, or a setting is wrong.
        """
        file = existing_settings_file(config)
        opened = open_project(file)
        settings, lake = opened.project.settings, RememberingLake.of(opened.project.lake)
        return cls(
            settings.base.name,
            settings.recipe,
            lake,
            Answers(opened, lake),
            dagster_home,
            settings.mlflow_address,
            selections,
            file,
            QueryFiles(settings),
            CheckpointFolders(opened.project.checkpoints),
        )

    def warm(self) -> None:
        """Load the newest checkpoint, and look for what the checks said last and for checkpoints' files, in the background."""
        self.answers.warm()
        self._checks.outcomes()
        self.checkpoint_folders.lost(())

    def overview(self, question: OverviewQuestion | None = None) -> Overview:
        """Tell which checkpoints have scores, and of which query sets."""
        del question
        checkpoints = tuple(scored_checkpoints(self.lake))
        lost = self.checkpoint_folders.lost(one.name for one in checkpoints)
        return Overview(self.name, checkpoints, tuple(sorted(lost)))

    def queries(self, question: QueriesQuestion) -> Queries:
        """List the queries of a set, a page at a time, with the loss and the spread of scores of each.

        Raises:
            NotStoredError: there is no such checkpoint or query set.
        """
        checkpoint, query_set = self.places.of(question)
        found = found_queries(self.lake, checkpoint, query_set, question.text, question.offset, question.limit)
        notice = self.notices.notice(checkpoint, query_set)
        return Queries(checkpoint, query_set, found.queries, found.offset, found.n_found, notice)

    def influences(self, question: InfluencesQuestion) -> Influences:
        """List training examples that made a completion more likely (proponents) or less (opponents), a page at a time.

        Raises:
            NotStoredError: there is no such checkpoint, query set, query or ranking; or it was not computed.
            SettingsError: a filter would read too much.
        """
        checkpoint, query, ranked = self.ranked(question)
        listed = influence_list(
            self.lake,
            ranked,
            question.side,
            question.filter,
            question.offset,
            question.limit,
            fold=question.fold,
        )
        # Of what is computed at once, or ranked otherwise, nothing was ranked again.
        if not question.is_computed and question.method == MethodName.LORIF and question.ranking == "plain":
            listed = self._with_exact_ranks(listed, checkpoint, query, question.side)
        lengths = by_length(self.lake, checkpoint, ranked)
        return Influences(checkpoint, query, listed, lengths, self.notice(question, checkpoint, query.query_set))

    def notice(self, question: Question, checkpoint: str, query_set: str) -> str | None:
        """Return sentences on what the scores rest on that changed, and on what was cut of a question that was computed."""
        if not isinstance(question, AskedQuestion) or not question.is_computed:
            return self.notices.notice(checkpoint, query_set)
        return joined(self.notices.notice(checkpoint), self.answers.notice(self.computed(question)))

    def _with_exact_ranks(
        self, listed: InfluenceList, checkpoint: str, query: ScoredQuery, side: Side
    ) -> InfluenceList:
        ranks = exact_ranks(self.lake, checkpoint, query.query_set)
        stored = HIGHEST if side is Side.PROPONENTS else LOWEST
        rows = (
            replace(one, exact=ranks.get((query.query_id, stored, one.shard, one.example_id))) for one in listed.rows
        )
        return replace(listed, rows=tuple(rows))

    def groups(self, question: GroupsQuestion) -> Groups:
        """Sum a query's influence by the values of a metadata column: which source or topic taught it.

        Of stored scores whose noise was measured (`groups.shrunk`), posterior means are summed.

        Raises:
            NotStoredError: there is no such checkpoint, query or column; or it was not computed.
        """
        checkpoint, query, ranked = self.ranked(question)
        is_lorif = question.method == MethodName.LORIF
        noise = stored_noise_share(self.lake, checkpoint, query.query_set, question.ranking) if is_lorif else None
        grouping = grouped(self.lake, ranked, question.column, noise)
        return Groups(checkpoint, query, grouping, self.notice(question, checkpoint, query.query_set))

    def movement(self, question: MovementQuestion) -> QueryMovement:
        """Tell how the leading examples of a stored query moved from checkpoint to checkpoint.

        Raises:
            NotStoredError: there is no such query.
        """
        checkpoint, query = self.stored_query(question, question.query)
        of_query = query.query_set, query.query_id
        found = movement(self.lake, *of_query, question.ranking, question.side, question.leading)
        return QueryMovement(*of_query, found, self.notices.notice(checkpoint, query.query_set))

    def example(self, question: ExampleQuestion) -> Example:
        """Show a training example whole: its text and metadata, its loss at each checkpoint, the stored queries it moves.

        Raises:
            NotStoredError: it is not in the training data.
        """
        return example(self.lake, question.shard, question.example, question.limit, question.checkpoint)

    def tokens(self, question: TokensQuestion) -> PairTokens:
        """Tell what each token of a training example, and of a query, contributed to the score of the pair.

        Raises:
            NotStoredError: there is no such checkpoint, query or example; or it was not computed.
        """
        stored = self.stored_tokens(question)
        if stored is not None:
            return stored
        found = pair_tokens(self.answers.tokens(self.computed(question)))
        return replace(found, stored_score=self._listed_score(question))

    def _listed_score(self, question: TokensQuestion) -> float | None:
        """The score of a pair in the list that it was opened from; None where that is not known, or has it no more."""
        asked = {name: getattr(question, name) for name in AskedQuestion.model_fields}
        try:
            _, _, ranked = self.ranked(RankingQuestion(**asked))
        except NotStoredError:
            return None
        of_pair = (pl.col("shard") == question.shard) & (pl.col("example_id") == question.example)
        return next(iter(ranked.rows.filter(of_pair)["value"]), None)

    def stored_tokens(self, question: TokensQuestion) -> PairTokens | None:
        """Return what `tokens` does where it is stored.

        Raises:
            NotStoredError: there is no such checkpoint or query.
        """
        if question.completion or question.weighted or question.asked is not None or question.span:
            return None
        computed = self.computed(question)
        pair = {"query_id": computed.query, "shard": question.shard, "example_id": question.example}
        rows = rows_beside_scores(self.lake, TOKEN_SCORES, computed.checkpoint, computed.query_set, **pair)
        return None if rows.is_empty() else pair_tokens(rows)

    def asked_query(self, question: AskedQuestion) -> tuple[str, ScoredQuery | None]:
        """Return the checkpoint that a question is about, and the query if it is a stored one.

        Raises:
            NotStoredError: there is no such checkpoint or query.
        """
        computed = self.computed(question)
        if not computed.query_set:
            return computed.checkpoint, None
        return computed.checkpoint, scored_query(self.lake, computed.checkpoint, computed.query_set, computed.query)

    def stored_query(self, question: QuerySetQuestion, query_id: str | None) -> tuple[str, ScoredQuery]:
        """Return the checkpoint and the stored query that a question is about; without an id, the first of the set.

        Raises:
            NotStoredError: there is no such checkpoint or query.
        """
        checkpoint, query_set = self.places.of(question)
        return checkpoint, scored_query(self.lake, checkpoint, query_set, query_id)

    def trust(self, question: TrustQuestion) -> Trust:
        """Tell whether the scores of a query set at a checkpoint can be trusted, and why.

        Raises:
            NotStoredError: there are no such scores.
        """
        checkpoint, query_set = self.places.of(question)
        return self._verdicts.verdict(checkpoint, query_set, self._checks.outcomes(_PATIENCE_SECONDS))

    def trust_at_once(self, question: TrustQuestion) -> Trust | None:
        """Return what `trust` does, or None where that takes longer than a page should; it is then found for the next page.

        Raises:
            NotStoredError: there are no such scores.
        """
        checkpoint, query_set = self.places.of(question)
        return self._verdicts.verdict_at_once(checkpoint, query_set, self._checks.outcomes())

    def ask(self, question: AskedQuestion) -> Progressed:
        """Have a question computed by the warm model, unless it was already, and tell how far it is.

        Raises:
            NotStoredError: there is no such checkpoint or stored query; or the question is no completion and not `every`.
        """
        return self.answers.ask(self.computed(question))

    def progress(self, question: AskedQuestion) -> Progressed:
        """Tell how far a question is that was asked.

        Raises:
            NotStoredError: as `ask`.
        """
        return self.answers.progress(self.computed(question))

    def methods(self, checkpoint: str, query_set: str) -> list[StoredMethod]:
        """Return the methods that have scores of a query set."""
        return [StoredMethod(name, method_title(name)) for name in scored_methods(self.lake, checkpoint, query_set)]

    def rankings(self, question: RankingQuestion) -> list[Ranking]:
        """Return the rankings that there are of a question: those that are stored, or both where it was just computed."""
        if question.method != MethodName.LORIF:
            return ["plain"]
        if question.is_computed:
            return list(RANKINGS)
        checkpoint, query_set = self.places.of(question)
        return [name for name in RANKINGS if not stored_ranking(self.lake, checkpoint, query_set, name).is_empty()]

    def ranked(self, question: RankingQuestion) -> tuple[str, ScoredQuery, Ranked]:
        """Return the checkpoint, the query and the ranking that a question is about.

        Raises:
            NotStoredError: one of them is not there, or was not computed.
        """
        if not question.is_computed:
            checkpoint, query = self.stored_query(question, question.query)
            return checkpoint, query, ranked_query(self.lake, checkpoint, query, question.ranking, question.method)
        if question.method != MethodName.LORIF:
            raise NotStoredError(f"a question of your own is answered by LoRIF alone, not by {question.method!r}")
        computed = self.computed(question)
        answer = self.answers.answer(computed)
        said = Part(answer.prompt, carries_loss=False), Part(answer.completion, carries_loss=True)
        query = ScoredQuery(
            query_set=computed.query_set,
            query_id=computed.query,
            parts=said if answer.prompt else said[1:],
            metadata={},
            objective=_objective(computed),
            loss=answer.loss,
            n_target_tokens=answer.n_target_tokens,
            n_examples=answer.n_examples,
            score_std=answer.figures["score_std"],
            top_10_share=answer.figures["top_10_share"],
            top_100_share=answer.figures["top_100_share"],
        )
        if computed.query_set:
            stored = scored_query(self.lake, computed.checkpoint, computed.query_set, computed.query)
            query = replace(query, parts=stored.parts, metadata=stored.metadata, objective=stored.objective)
        table = answer.table if question.ranking == "plain" else answer.relative
        return (
            computed.checkpoint,
            query,
            ranked_answer(table, question.ranking, answer.n_examples, dict(answer.figures)),
        )

    def computed(self, question: AskedQuestion) -> Computed:
        """Return what a question asks to be computed.

        Raises:
            NotStoredError: there is no such checkpoint or stored query, or nothing to compute.
        """
        if not question.is_computed:
            raise NotStoredError(
                "nothing is to be computed: give a `completion`, or a stored query and `every`, a `span` or an `example`"
            )
        if question.completion:
            at = self.places.checkpoint(question)
            asked = Computed(at.name, question.prompt, question.completion, question.against, question.chat)
        elif question.weighted:
            members = tuple(member_line(**member.model_dump(), chat=question.chat) for member in question.weighted)
            asked = Computed(self.places.checkpoint(question).name, weighted=members)
        elif question.asked is not None:
            asked = self.answers.question(question.asked)
            asked = replace(asked, checkpoint=question.checkpoint or asked.checkpoint)
        else:
            checkpoint, query = self.stored_query(question, question.query)
            asked = Computed(checkpoint, query_set=query.query_set, query=query.query_id)
        asked = replace(asked, span=question.span or asked.span)
        return (
            replace(asked, shard=question.shard, example=question.example)
            if isinstance(question, WorkQuestion)
            else asked
        )


def _objective(computed: Computed) -> dict[str, Any]:
    """What a completion of one's own, or several, asks about, as a stored query has it."""
    if computed.weighted:
        return {"weighted": [*computed.weighted]}
    return {"against": computed.against} if computed.against else {}
