"""The questions that can be put to the explorer, in an address, as JSON or by an assistant: each a model of its parameters."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lorif_assets.attribution.scores.stored_rankings import WHEN_WHICH, Ranking
from lorif_assets.config.methods import MethodName
from lorif_assets.data.rows.json_values import parsed_json
from lorif_assets.influences.listing import Filter
from lorif_assets.influences.ranked import Side
from lorif_assets.influences.set_influence import SetRanking
from lorif_assets.influences.wanted_rows import WantedRows, weighted_set

_MOST_ROWS = 200


class Question(BaseModel):
    """Parameters of a question; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OverviewQuestion(Question):
    """What can be looked at."""


class CheckpointQuestion(Question):
    """Something at a checkpoint."""

    checkpoint: str | None = Field(None, description="A checkpoint that has scores; default: the newest.")


class QuerySetQuestion(CheckpointQuestion):
    """Something of a query set at a checkpoint."""

    query_set: str | None = Field(None, description="A query set that is scored there; default: the first.")


class QueriesQuestion(QuerySetQuestion):
    """The queries of a set."""

    text: str = Field("", description="Only queries that say this, whatever its case.")
    offset: int = Field(0, ge=0, description="Queries before the page.")
    limit: int = Field(100, ge=1, le=_MOST_ROWS, description="Queries of the page.")


class WeightedCompletion(Question):
    """One of several completions that are asked about together."""

    prompt: str = Field("", description="What the model was asked; it carries no loss.")
    completion: str = Field(min_length=1, description="What it said.")
    weight: float = Field(1.0, allow_inf_nan=False, description="Below zero, what speaks against it is wanted.")


class AskedQuestion(QuerySetQuestion):
    """A query: a stored one, or a completion that is asked about at once."""

    query: str | None = Field(None, description="Id of a stored query; default: the first of the set.")
    prompt: str = Field("", description="In place of a stored query: what the model was asked; it carries no loss.")
    completion: str = Field("", description="In place of a stored query: what the model said.")
    against: str = Field(
        "",
        description="Another completion of the same prompt: the ranking is then of what speaks for `completion` and against "
        "this one.",
    )
    weighted: tuple[WeightedCompletion, ...] = Field(
        (),
        description="In place of one completion: several with weights, as a list of {prompt, completion, weight} (in an "
        "address, as JSON). The ranking is then of the weighted sum of their losses.",
    )
    chat: bool = Field(
        False,
        description="Whether prompt and completion, or those of `weighted`, are what user and assistant say, through the chat "
        "template.",
    )
    every: bool = Field(
        False, description="Score every example of a stored query again, to list more than its stored scores."
    )

    asked: str | None = Field(
        None,
        description="In place of a completion that is too long for an address: the key that `ask` returned for it, which is "
        "known while the explorer runs.",
    )

    span: str | None = Field(
        None,
        description="Only a part of what was said: its first character and the one behind its last, from 0, as 12-27; or its "
        "text, where that occurs once. The ranking is then of the loss of that part.",
    )

    @field_validator("weighted", mode="before")
    @classmethod
    def _parsed_from_an_address(cls, given: Any) -> Any:
        # As a list of its own kind an address has texts, and a form of one that is empty an empty text.
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            return given
        members: list[Any] = []
        for text in filter(None, texts):
            found = parsed_json(text)
            members += found if isinstance(found, list) else [found]
        return members

    @model_validator(mode="after")
    def _is_one_query(self) -> Self:
        if sum(map(bool, (self.completion, self.weighted, self.query, self.asked))) > 1:
            raise ValueError(
                "`query` names a stored query, `completion` is one of your own, `weighted` are several, `asked` one that was "
                "asked before: give one"
            )
        if self.weighted and self.span:
            raise ValueError("`weighted` goes without a `span`")
        if self.prompt and not self.completion:
            raise ValueError("`prompt` goes with `completion`, what the model said after it")
        if self.against and (not self.completion or self.span):
            raise ValueError("`against` goes with `completion` and without a `span`")
        return self

    @property
    def is_computed(self) -> bool:
        """Whether it has to be computed, as no table holds it."""
        is_own = bool(self.completion or self.weighted) or self.asked is not None
        return is_own or self.every or bool(self.span)


class WorkQuestion(AskedQuestion):
    """What is to be computed: the scores of a query, or of one example each token's share of its score."""

    shard: str = Field("", description="For each token's share of a score: the shard of the example.")
    example: str = Field("", description="For each token's share of a score: the example's id.")

    @property
    def is_computed(self) -> bool:
        """Whether it has to be computed, as no table holds it."""
        return super().is_computed or bool(self.example)


class TokensQuestion(WorkQuestion):
    """What single tokens of a training example, and of a query, contributed to the score of the pair."""

    shard: str = Field(description="The shard that the example is in.")
    example: str = Field(min_length=1, description="Its id.")


class RankingQuestion(AskedQuestion):
    """A ranking of a query's training examples."""

    ranking: Ranking = Field("plain", description="; ".join(f"{name}: {words}" for name, words in WHEN_WHICH.items()))
    method: str = Field(MethodName.LORIF.value, description="LoRIF, or a method whose scores an evaluation kept.")


class InfluencesQuestion(RankingQuestion):
    """A page of one side of a ranking."""

    side: Side = Field(Side.PROPONENTS, description="Those that made the completion more likely, or less.")
    text: str = Field("", description="Only examples that say this, whatever its case.")
    where: tuple[str, ...] = Field((), description="Only examples with this metadata, each as column=value.")
    fold: bool = Field(True, description="Fold examples that nearly repeat one above into its row.")
    offset: int = Field(0, ge=0, description="Rows before the page.")
    limit: int = Field(10, ge=1, le=_MOST_ROWS, description="Rows of the page.")

    @model_validator(mode="before")
    @classmethod
    def _without_empty_filters(cls, values: Any) -> Any:
        # A form sends a choice that was not made as an empty one.
        if isinstance(values, Mapping) and isinstance(values.get("where"), list | tuple):
            return {**values, "where": tuple(one for one in values["where"] if one)}
        return values

    @model_validator(mode="after")
    def _filters_have_values(self) -> Self:
        for one in self.where:
            if "=" not in one:
                raise ValueError(f"`where` is column=value, found {one!r}")
        return self

    @property
    def filter(self) -> Filter:
        """Which examples are wanted."""
        pairs = (one.partition("=") for one in self.where)
        return Filter(self.text, tuple((column, value) for column, _, value in pairs))


class GroupsQuestion(RankingQuestion):
    """A query's influence, summed by metadata."""

    column: str | None = Field(None, description="Metadata column to group by; default: the first.")


class MovementQuestion(QuerySetQuestion):
    """How a query's leading examples moved over the checkpoints."""

    query: str | None = Field(None, description="Id of a stored query; default: the first of the set.")
    ranking: Ranking = Field("plain", description="By score, or by relative influence.")
    side: Side = Field(Side.PROPONENTS, description="Which end of the ranking.")
    leading: int = Field(10, ge=1, le=50, description="Examples that lead at a checkpoint.")


class ExampleQuestion(CheckpointQuestion):
    """A training example."""

    shard: str = Field(description="The shard that it is in.")
    example: str = Field(description="Its id.")
    limit: int = Field(50, ge=1, le=_MOST_ROWS, description="Queries that it moves, to list.")


class TrustQuestion(QuerySetQuestion):
    """Whether scores can be trusted."""


class SelectionQuestion(QuerySetQuestion):
    """Part of the training data, by its influence on stored queries or by name: these rows, or all but these."""

    query: str | None = Field(None, description="Id of the one query that counts; default: all of the set.")
    also: tuple[str, ...] = Field(
        (),
        description="Other query sets that count too, each as NAME or NAME=WEIGHT; below zero, rows that speak against it are "
        "wanted.",
    )
    query_weight: str | None = Field(None, description="A metadata column of the queries with their weights.")
    ranking: SetRanking = Field(
        "plain",
        description="plain: what moves the queries most; relative: for its size; hybrid: relative and shared words.",
    )
    end: Literal["top", "bottom"] = Field(
        "top", description="top: those that speak for the queries most; bottom: those that speak against them most."
    )
    amount: str = Field("10%", description="How much of it: a share, such as 10%, or a number of rows.")
    ids: tuple[str, ...] = Field(
        (),
        description="In place of an end of the ranking: rows by their ids, or as shard/id where several rows share one.",
    )
    exclude: bool = Field(False, description="Everything but these.")
    by: str | None = Field(
        None, description="Rank within the groups of this metadata column, and take as much of each value."
    )
    without_duplicates: bool = Field(False, description="Leave out rows that nearly repeat one that is taken.")

    @field_validator("also", mode="after")
    @classmethod
    def _without_empty_choices(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        # A form sends a choice that was not made as an empty one.
        return tuple(one for one in values if one)

    @model_validator(mode="after")
    def _is_one_query_or_whole_sets(self) -> Self:
        if self.query and self.also:
            raise ValueError("`also` goes with all queries of a set, not with one `query`")
        ranked_by = ("query", "also", "query_weight", "by", "without_duplicates")
        if self.ids and (idle := [name for name in ranked_by if getattr(self, name)]):
            raise ValueError(f"`ids` name rows, and nothing is ranked: leave {' and '.join(idle)} out")
        return self

    def wanted(self, checkpoint: str, query_set: str) -> WantedRows:
        """Return what is to be selected, of a query set at a checkpoint; rows that are named are the same at any.

        Raises:
            SettingsError: the amount is none, or a weight no number.
        """
        if self.ids:
            return WantedRows(ids=self.ids, exclude=self.exclude)
        return WantedRows(
            query_sets={query_set: 1.0} | dict(map(weighted_set, self.also)),
            queries=(self.query,) if self.query else (),
            query_weight=self.query_weight or None,
            ranking=self.ranking,
            top=self.amount if self.end == "top" else None,
            bottom=self.amount if self.end == "bottom" else None,
            exclude=self.exclude,
            by=self.by or None,
            without_duplicates=self.without_duplicates,
            checkpoint=checkpoint,
        )


class WriteQuestion(SelectionQuestion):
    """A selection that is to be written, and under which name."""

    output: str = Field(
        description="Name of a .parquet or .jsonl file for rows of one source, else of a folder with a Parquet file for each; "
        "in the folder that `lorif explore --allow-writing` names.",
    )
