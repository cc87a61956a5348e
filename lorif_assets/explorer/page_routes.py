"""The explorer's pages: each address is a question, and all of what is shown is in the address."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from lorif_assets.attribution.stored_rankings import Ranking
from lorif_assets.config.methods import MethodName
from lorif_assets.errors import LorifError, NotStoredError
from lorif_assets.explorer.answers import Stage
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.faces import read_question
from lorif_assets.explorer.json_api import parameters, status_of
from lorif_assets.explorer.questions import (
    AskedQuestion,
    ExampleQuestion,
    GroupsQuestion,
    InfluencesQuestion,
    MovementQuestion,
    QuerySetQuestion,
    Question,
    RankingQuestion,
    SelectionQuestion,
    TokensQuestion,
    TrustQuestion,
    WorkQuestion,
)
from lorif_assets.explorer.selections import writing_command
from lorif_assets.explorer.spans import MarkedSpan, marked_span
from lorif_assets.influences.catalogue import ScoredCheckpoint, ScoredQuery, scored_queries, scored_query
from lorif_assets.influences.ranked import Side
from lorif_assets.influences.set_influence import SET_RANKINGS
from lorif_assets.influences.trust import Trust
from lorif_assets.influences.wanted_rows import weighted_set
from lorif_assets.pages.explorer.page import render
from lorif_assets.pages.passages import MOST_CHARACTERS
from lorif_assets.pages.token_colours import n_left_out, single_tokens


class ExamplePage(ExampleQuestion):
    """A training example, and the query from whose list it was opened, for the way back."""

    from_checkpoint: str | None = None
    from_set: str | None = None
    from_query: str | None = None


class TokensPage(TokensQuestion):
    """The tokens of a pair, by the ranking that it was opened from, for the way back."""

    ranking: Ranking = "plain"


_KINDS: Mapping[str, type[Question]] = {
    "/": QuerySetQuestion,
    "/query": InfluencesQuestion,
    "/groups": GroupsQuestion,
    "/movement": MovementQuestion,
    "/example": ExamplePage,
    "/tokens": TokensPage,
    "/trust": TrustQuestion,
    "/ask": WorkQuestion,
    "/select": SelectionQuestion,
    "/api/influences": InfluencesQuestion,
    "/api/influences.csv": InfluencesQuestion,
    "/api/influences.parquet": InfluencesQuestion,
}
_FILTERS = {"ranking", "method", "text", "where", "fold", "offset", "column", "side"}


@dataclass(frozen=True)
class Frame:
    """What is around the content of a page: where one is, and where one can go."""

    project: str
    path: str
    checkpoint: str = ""
    query_set: str = ""
    checkpoints: tuple[ScoredCheckpoint, ...] = ()
    query_sets: tuple[str, ...] = ()
    queries: tuple[ScoredQuery, ...] = ()
    query: str | None = None
    trust: Trust | None = None
    kept: tuple[tuple[str, str], ...] = ()

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


def page_routes(explorer: Explorer) -> list[Route]:
    """Return the routes of all pages."""
    shown: Mapping[str, Callable[[Explorer, Any, str], str]] = {
        "/": _home,
        "/query": _query,
        "/groups": _groups,
        "/movement": _movement,
        "/example": _example,
        "/tokens": _tokens,
        "/trust": _trust,
        "/ask": _ask,
        "/select": _select,
    }
    return [Route(path, _page(explorer, path, show)) for path, show in shown.items()]


def address(path: str, question: Question | None = None, **changes: Any) -> str:
    """Return the address of a question at a path, some of its parameters changed.

    Defaults are left out, and so is what the page at the path does not know.
    """
    known = _KINDS[path].model_fields
    own = question.model_dump(mode="json", exclude_defaults=True) if question else {}
    said = {name: value for name, value in (own | changes).items() if name in known and value not in (None, "", [], ())}
    plain = {name: str(value).lower() if isinstance(value, bool) else value for name, value in said.items()}
    query = urlencode({name: value for name, value in plain.items() if value != known[name].default}, doseq=True)
    return f"{path}?{query}" if query else path


def error_page(explorer: Explorer, title: str, message: str, status: int) -> Response:
    """Return a page that says what went wrong and what to do."""
    frame = Frame(explorer.name, "/")
    return HTMLResponse(render("error", {"frame": frame, "to": address, "title": title, "message": message}), status)


def _page(explorer: Explorer, path: str, show: Callable[[Explorer, Any, str], str]) -> Callable[[Request], Response]:
    kind = _KINDS[path]

    def page(request: Request) -> Response:
        try:
            given = parameters(kind, request.query_params)
            # A form writes each line break as two characters, which are other tokens.
            given |= {
                name: given[name].replace("\r\n", "\n") for name in ("prompt", "completion", "against") if name in given
            }
            question = read_question(kind, given)
            if isinstance(question, RankingQuestion | TokensQuestion) and _has_to_be_asked(explorer, question):
                return HTMLResponse(_asking(explorer, question, path, request.url.path + _query_string(request)))
            return HTMLResponse(show(explorer, question, path))
        except NotStoredError as error:
            return error_page(explorer, "Not stored", str(error), 404)
        except LorifError as error:
            return error_page(explorer, "This cannot be shown", str(error), status_of(error))

    return page


def _query_string(request: Request) -> str:
    return f"?{request.url.query}" if request.url.query else ""


def _has_to_be_asked(explorer: Explorer, question: AskedQuestion) -> bool:
    if isinstance(question, TokensQuestion) and explorer.stored_tokens(question):
        return False
    return question.is_computed and explorer.progress(question).stage is not Stage.READY


def _frame(explorer: Explorer, question: Question, path: str, query: str | None = None) -> Frame:
    overview = explorer.overview()
    at = QuerySetQuestion(
        checkpoint=getattr(question, "checkpoint", None), query_set=getattr(question, "query_set", None)
    )
    checkpoint, query_set = explorer.place(at)
    (sets,) = (one.query_sets for one in overview.checkpoints if one.name == checkpoint)
    return Frame(
        project=explorer.name,
        path=path,
        checkpoint=checkpoint,
        query_set=query_set,
        checkpoints=overview.checkpoints,
        query_sets=sets,
        queries=tuple(scored_queries(explorer.lake, checkpoint, query_set)),
        query=query,
        trust=explorer.trust_at_once(TrustQuestion(checkpoint=checkpoint, query_set=query_set)),
        kept=_hidden(question, leaving_out={"checkpoint", "query_set", "offset"}),
    )


def _hidden(question: Question, leaving_out: set[str]) -> tuple[tuple[str, str], ...]:
    """A question's parameters as hidden fields of a form that has others."""
    own = question.model_dump(mode="json", exclude_defaults=True, exclude=leaving_out)
    return tuple(
        (name, str(one).lower() if isinstance(one, bool) else str(one))
        for name, value in own.items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None
    )


def _home(explorer: Explorer, question: QuerySetQuestion, path: str) -> str:
    frame = _frame(explorer, question, path)
    return render("home", {"frame": frame, "to": address, "asked": AskedQuestion()})


def _query(explorer: Explorer, question: InfluencesQuestion, path: str) -> str:
    resolved, frame, query = _resolved(explorer, question, path)
    found = {side: explorer.influences(resolved.model_copy(update={"side": side})) for side in Side}
    lists = {side.value: one.listed for side, one in found.items()}
    columns: dict[str, dict[str, int]] = {}
    for listed in lists.values():
        for column, values in listed.metadata.items():
            counts = columns.setdefault(column, {})
            for value, n in values:
                counts[value] = counts.get(value, 0) + n
    return render(
        "query",
        {
            "frame": frame,
            "to": address,
            "question": resolved,
            "query": query,
            "rankings": explorer.rankings(resolved),
            "selectable": _selectable(resolved, query),
            "part_fields": _hidden(resolved, leaving_out={"span", "every", "offset", "text", "where", "method"}),
            "methods": [] if question.is_computed else explorer.methods(frame.checkpoint, frame.query_set),
            "columns": {column: list(counts.items()) for column, counts in columns.items() if len(counts) > 1},
            "kept": _hidden(resolved, leaving_out=_FILTERS),
            "selecting": _selecting(resolved),
            "lengths": found[Side.PROPONENTS].lengths,
            **lists,
        },
    )


def _selecting(question: InfluencesQuestion) -> str | None:
    """The command that writes the training data that a stored query's ranking leads with; None of another ranking."""
    if question.query is None or question.query_set is None or question.method != MethodName.LORIF:
        return None
    leading = SelectionQuestion(query=question.query, ranking=question.ranking)
    return writing_command(leading.wanted(question.checkpoint or "", question.query_set))


@dataclass(frozen=True)
class _Selectable:
    """What was said of a query, the span that is asked about marked, for a person to select another; `by` what it is named."""

    said: MarkedSpan
    by: str


def _selectable(question: InfluencesQuestion, query: ScoredQuery) -> _Selectable | None:
    """What of a query can be asked about in parts: what was said, where it is one text that a browser shows as it is."""
    said = [part for part in query.parts if part.carries_loss] if not question.against else []
    # Of two characters that end a line a browser makes one, after which all others have other numbers.
    if len(said) != 1 or "\r" in said[0].text or len(said[0].text) > MOST_CHARACTERS:
        return None
    # A chat's span is named by its text alone.
    return _Selectable(marked_span(said[0].text, question.span or ""), "text" if said[0].role else "ends")


def _groups(explorer: Explorer, question: GroupsQuestion, path: str) -> str:
    resolved, frame, query = _resolved(explorer, question, path)
    return render(
        "groups",
        {
            "frame": frame,
            "to": address,
            "question": resolved,
            "query": query,
            "grouping": explorer.groups(resolved).grouping,
            "kept": _hidden(resolved, leaving_out={"column"}),
        },
    )


def _movement(explorer: Explorer, question: MovementQuestion, path: str) -> str:
    stored = RankingQuestion(checkpoint=question.checkpoint, query_set=question.query_set, query=question.query)
    asked, frame, query = _resolved(explorer, stored, path)
    resolved = question.model_copy(update={name: getattr(asked, name) for name in ("checkpoint", "query_set", "query")})
    return render(
        "movement",
        {
            "frame": frame,
            "to": address,
            "question": resolved,
            "query": query,
            "movement": explorer.movement(resolved).movement,
            "kept": _hidden(resolved, leaving_out=_FILTERS),
        },
    )


def _example(explorer: Explorer, question: ExamplePage, path: str) -> str:
    found = explorer.example(question)
    origin = QuerySetQuestion(checkpoint=question.from_checkpoint, query_set=question.from_set)
    frame = _frame(explorer, origin, path, question.from_query)
    return render("example", {"frame": frame, "to": address, "example": found})


def _tokens(explorer: Explorer, question: TokensPage, path: str) -> str:
    checkpoint, query = explorer.asked_query(question)
    at = question.model_copy(update={"checkpoint": checkpoint})
    tokens = explorer.tokens(question)
    sides = [("example", "Of the example", tokens.example)]
    for number, term in enumerate(tokens.query, 1):
        sides.append(("query", f"Of the query, part {number}" if len(tokens.query) > 1 else "Of the query", term))
    return render(
        "tokens",
        {
            "frame": _frame(explorer, at, path, query.query_id if query else None),
            "to": address,
            "question": at,
            "tokens": tokens,
            "sides": [
                {"side": side, "title": title, "tokens": single_tokens(found), "n_left_out": n_left_out(found)}
                for side, title, found in sides
            ],
        },
    )


def _trust(explorer: Explorer, question: TrustQuestion, path: str) -> str:
    frame = _frame(explorer, question, path)
    return render("trust", {"frame": frame, "to": address, "trust": explorer.trust(question)})


def _ask(explorer: Explorer, question: AskedQuestion, path: str) -> str:
    if not question.is_computed:
        frame = _frame(explorer, question, path)
        return render("ask", {"frame": frame, "to": address, "asked": question, "question": None, "then": ""})
    return _asking(explorer, question, path, address("/query", question))


def _select(explorer: Explorer, question: SelectionQuestion, path: str) -> str:
    """The page of a selection: what it would have, once it is found; until then, how far that is."""
    wanted = explorer.wanted(question)
    frame = _frame(explorer, question, path)
    query_set = frame.query_set
    at = question.model_copy(update={"checkpoint": wanted.checkpoint, "query_set": query_set})
    is_found = explorer.answers.progress(wanted).stage is Stage.READY
    found = explorer.selection(at) if is_found else None
    return render(
        "select",
        {
            "frame": frame,
            "to": address,
            "question": at,
            "query": scored_query(explorer.lake, frame.checkpoint, query_set, at.query) if at.query else None,
            "rankings": SET_RANKINGS,
            "columns": list(explorer.influences(InfluencesQuestion(**_place(at), limit=1)).listed.metadata),
            "also": dict(map(weighted_set, at.also)),
            "others": {} if at.query else _others(frame, at),
            "found": found,
            "asked": at.model_dump_json(exclude_defaults=True),
            "then": address(path, at),
            "folder": explorer.selections.path,
        },
    )


def _others(frame: Frame, question: SelectionQuestion) -> Mapping[str, Mapping[str, str]]:
    """How else a query set may count, by its name: for a row, against it, or as the address has it."""
    asked = {weighted_set(one)[0]: one for one in question.also}
    found = {}
    for name in frame.query_sets:
        ways = {f"{name}=1": "counts for rows", f"{name}=-1": "counts against them"}
        if name in asked and asked[name] not in ways:
            ways[asked[name]] = f"weight {weighted_set(asked[name])[1]:g}"
        found[name] = ways
    return {name: ways for name, ways in found.items() if name != question.query_set}


def _place(question: SelectionQuestion) -> Mapping[str, str | None]:
    return {name: getattr(question, name) for name in ("checkpoint", "query_set", "query")}


def _asking(explorer: Explorer, question: AskedQuestion, path: str, then: str) -> str:
    """The page that has a question computed, shows how far it is, and goes on to an address."""
    kind = WorkQuestion if isinstance(question, WorkQuestion) else AskedQuestion
    asked = kind(**{name: getattr(question, name) for name in kind.model_fields})
    return render(
        "ask",
        {
            "frame": _frame(explorer, question, path, question.query),
            "to": address,
            "asked": asked,
            "question": asked.model_dump_json(exclude_defaults=True),
            "then": then,
        },
    )


def _resolved(explorer: Explorer, question: Any, path: str) -> tuple[Any, Frame, ScoredQuery]:
    """A question with the names that its defaults stand for, so that its address stays true when a newer checkpoint comes."""
    checkpoint, query, _ = explorer.ranked(question)
    frame = _frame(explorer, question.model_copy(update={"checkpoint": checkpoint}), path, query.query_id or None)
    names = {"checkpoint": checkpoint}
    if query.query_id:
        names |= {"query_set": query.query_set, "query": query.query_id}
    return question.model_copy(update=names), frame, query
