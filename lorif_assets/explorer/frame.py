"""What pages have in common: their addresses, and what is around their content."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from lorif_assets.attribution.scores.stored_rankings import Ranking
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.questions import (
    AskedQuestion,
    ExampleQuestion,
    GroupsQuestion,
    InfluencesQuestion,
    MovementQuestion,
    QueriesQuestion,
    QuerySetQuestion,
    Question,
    SelectionQuestion,
    TokensQuestion,
    TrustQuestion,
    WorkQuestion,
)
from lorif_assets.influences.catalogue import ScoredCheckpoint
from lorif_assets.influences.query_page import QueryPage, queries_around
from lorif_assets.influences.trust import Trust


class ExamplePage(ExampleQuestion):
    """A training example, and the query from whose list it was opened, for the way back."""

    from_checkpoint: str | None = None
    from_set: str | None = None
    from_query: str | None = None


class TokensPage(TokensQuestion):
    """The tokens of a pair, by the ranking that it was opened from, for the way back."""

    ranking: Ranking = "plain"


KINDS: Mapping[str, type[Question]] = {
    "/": QueriesQuestion,
    "/query": InfluencesQuestion,
    "/groups": GroupsQuestion,
    "/movement": MovementQuestion,
    "/example": ExamplePage,
    "/tokens": TokensPage,
    "/trust": TrustQuestion,
    "/ask": WorkQuestion,
    "/select": SelectionQuestion,
    "/marked": QuerySetQuestion,
    "/api/influences": InfluencesQuestion,
    "/api/influences.csv": InfluencesQuestion,
    "/api/influences.parquet": InfluencesQuestion,
}
"""What the addresses of pages, and those that pages link to, have as parameters."""

VIEWS = ("/query", "/groups", "/movement")
"""The pages of a query: another query is shown in the same view."""
_OF_ONE_QUERY = frozenset(AskedQuestion.model_fields) - frozenset(QuerySetQuestion.model_fields) | {"offset"}
_LISTED_BESIDE = 100


@dataclass(frozen=True)
class Frame:
    """What is around the content of a page: where one is, and where one can go.

    `lost_sets` have no query file any more, `lost_checkpoints` no files. `queries` are listed beside the page; another one is
    shown at the path `view`, as `walked` has it.
    """

    project: str
    path: str
    checkpoint: str = ""
    query_set: str = ""
    checkpoints: tuple[ScoredCheckpoint, ...] = ()
    query_sets: tuple[str, ...] = ()
    lost_sets: frozenset[str] = frozenset()
    lost_checkpoints: tuple[str, ...] = ()
    queries: QueryPage = field(default_factory=QueryPage)
    query: str | None = None
    view: str = "/query"
    walked: Question = field(default_factory=QuerySetQuestion)
    trust: Trust | None = None
    kept: tuple[tuple[str, str], ...] = ()
    notice: str | None = None

    @property
    def is_of_one_example(self) -> bool:
        """Whether the page is the same at every checkpoint and for every query set."""
        return self.path == "/example"

    @property
    def origin(self) -> Mapping[str, str | None]:
        """This page's place, as a page of an example that is opened from it keeps it."""
        return {"from_checkpoint": self.checkpoint, "from_set": self.query_set, "from_query": self.query}

    @property
    def at(self) -> QuerySetQuestion:
        """The checkpoint and the query set as a question, for addresses."""
        return QuerySetQuestion(checkpoint=self.checkpoint or None, query_set=self.query_set or None)


def address(path: str, question: Question | None = None, **changes: Any) -> str:
    """Return the address of a question at a path, some of its parameters changed.

    Defaults are left out, and so is what the page at the path does not know.
    """
    known = KINDS[path].model_fields
    own = question.model_dump(mode="json", exclude_defaults=True) if question else {}
    said = {name: value for name, value in (own | changes).items() if name in known and value not in (None, "", [], ())}
    plain = {name: _plain(value) for name, value in said.items()}
    query = urlencode({name: value for name, value in plain.items() if value != known[name].default}, doseq=True)
    return f"{path}?{query}" if query else path


def frame_of(explorer: Explorer, question: Question, path: str, query: str | None = None) -> Frame:
    """Return what is around a question's page at a path."""
    overview = explorer.overview()
    at = QuerySetQuestion(
        checkpoint=getattr(question, "checkpoint", None), query_set=getattr(question, "query_set", None)
    )
    checkpoint, query_set = explorer.places.of(at)
    (sets,) = (one.query_sets for one in overview.checkpoints if one.name == checkpoint)
    return Frame(
        project=explorer.name,
        path=path,
        checkpoint=checkpoint,
        query_set=query_set,
        checkpoints=overview.checkpoints,
        query_sets=sets,
        lost_sets=explorer.query_files.lost(sets),
        lost_checkpoints=overview.lost,
        queries=queries_around(explorer.lake, checkpoint, query_set, query, _LISTED_BESIDE),
        query=query,
        view=path if path in VIEWS else "/query",
        walked=_walked(question if path in VIEWS else at, checkpoint, query_set),
        trust=explorer.trust_at_once(TrustQuestion(checkpoint=checkpoint, query_set=query_set)),
        kept=hidden(question, leaving_out={"checkpoint", "query_set", "offset"}),
        notice=explorer.notice(question, checkpoint, query_set),
    )


def _walked(question: Question, checkpoint: str, query_set: str) -> Question:
    """A question without what is of one query alone, to be asked of the others: the ranking and the filters stay."""
    fields = type(question).model_fields
    defaults = {name: field.get_default() for name, field in fields.items() if name in _OF_ONE_QUERY}
    return question.model_copy(update=defaults | {"checkpoint": checkpoint, "query_set": query_set})


def hidden(question: Question, leaving_out: set[str]) -> tuple[tuple[str, str], ...]:
    """A question's parameters as hidden fields of a form that has others."""
    own = question.model_dump(mode="json", exclude_defaults=True, exclude=leaving_out)
    return tuple(
        (name, str(_plain(one)))
        for name, value in own.items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None
    )


def _plain(value: Any) -> Any:
    """A parameter as an address and a form have it: objects as JSON, and what is one or the other in small letters."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else value
