"""The explorer's pages: each address is a question, and all of what is shown is in the address."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from lorif_assets.config.methods import MethodName
from lorif_assets.errors import LorifError, NotStoredError
from lorif_assets.explorer.asking_pages import ask_page, asking_page, has_to_be_asked
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.faces import read_question
from lorif_assets.explorer.frame import KINDS, ExamplePage, Frame, TokensPage, address, frame_of, hidden
from lorif_assets.explorer.json_api import parameters, status_of
from lorif_assets.explorer.questions import (
    AskedQuestion,
    GroupsQuestion,
    InfluencesQuestion,
    MovementQuestion,
    QueriesQuestion,
    QuerySetQuestion,
    RankingQuestion,
    SelectionQuestion,
    TokensQuestion,
    TrustQuestion,
)
from lorif_assets.explorer.selection_pages import marked_page, selection_page
from lorif_assets.explorer.selections import writing_command
from lorif_assets.explorer.spans import MarkedSpan, marked_span
from lorif_assets.influences.catalogue import ScoredQuery
from lorif_assets.influences.listing import MOST_VALUES
from lorif_assets.influences.ranked import Side
from lorif_assets.pages.explorer.page import render
from lorif_assets.pages.passages import MOST_CHARACTERS
from lorif_assets.pages.token_colours import n_left_out, single_tokens

_FILTERS = {"ranking", "method", "text", "where", "fold", "offset", "column", "side"}


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
        "/ask": ask_page,
        "/select": selection_page,
        "/marked": marked_page,
    }
    return [Route(path, _page(explorer, path, show)) for path, show in shown.items()]


def error_page(explorer: Explorer, title: str, message: str, status: int) -> Response:
    """Return a page that says what went wrong and what to do."""
    frame = Frame(explorer.name, "/", notice=explorer.notices.of_settings())
    return HTMLResponse(render("error", {"frame": frame, "to": address, "title": title, "message": message}), status)


def _page(explorer: Explorer, path: str, show: Callable[[Explorer, Any, str], str]) -> Callable[[Request], Response]:
    kind = KINDS[path]

    def page(request: Request) -> Response:
        try:
            given = parameters(kind, request.query_params)
            # A form writes each line break as two characters, which are other tokens.
            given |= {
                name: given[name].replace("\r\n", "\n") for name in ("prompt", "completion", "against") if name in given
            }
            question = read_question(kind, given)
            if isinstance(question, RankingQuestion | TokensQuestion) and has_to_be_asked(explorer, question):
                return HTMLResponse(asking_page(explorer, question, path, request.url.path + _query_string(request)))
            return HTMLResponse(show(explorer, question, path))
        except NotStoredError as error:
            return error_page(explorer, "Not stored", str(error), 404)
        except LorifError as error:
            return error_page(explorer, "This cannot be shown", str(error), status_of(error))

    return page


def _query_string(request: Request) -> str:
    return f"?{request.url.query}" if request.url.query else ""


def _home(explorer: Explorer, question: QueriesQuestion, path: str) -> str:
    frame = frame_of(explorer, question, path)
    at = question.model_copy(update={"checkpoint": frame.checkpoint, "query_set": frame.query_set})
    found = explorer.queries(question)
    return render("home", {"frame": frame, "to": address, "asked": AskedQuestion(), "question": at, "found": found})


def _query(explorer: Explorer, question: InfluencesQuestion, path: str) -> str:
    resolved, frame, query = _resolved(explorer, question, path)
    found = {side: explorer.influences(resolved.model_copy(update={"side": side})) for side in Side}
    lists = {side.value: one.listed for side, one in found.items()}
    return render(
        "query",
        {
            "frame": frame,
            "to": address,
            "question": resolved,
            "query": query,
            "rankings": explorer.rankings(resolved),
            "selectable": _selectable(resolved, query),
            "part_fields": hidden(resolved, leaving_out={"span", "every", "offset", "text", "where", "method"}),
            "methods": [] if question.is_computed else explorer.methods(frame.checkpoint, frame.query_set),
            "columns": _columns([listed.metadata for listed in lists.values()], resolved.filter.metadata),
            "kept": hidden(resolved, leaving_out=_FILTERS),
            "selecting": _selecting(resolved),
            "lengths": found[Side.PROPONENTS].lengths,
            **lists,
        },
    )


def _columns(
    sides: Sequence[Mapping[str, Sequence[tuple[str, int]]]], chosen: Sequence[tuple[str, str]]
) -> dict[str, list[tuple[str, int | None]]]:
    """The values to choose from in each column of metadata, and how many examples of either side have them.

    That is not known where a side has more values than are counted. What is chosen is among them whatever it is.
    """
    columns: dict[str, list[tuple[str, int | None]]] = {}
    for column in dict.fromkeys(column for side in sides for column in side):
        counts: Counter[str] = Counter()
        for side in sides:
            counts.update(dict(side.get(column, ())))
        is_cut = any(len(side.get(column, ())) >= MOST_VALUES for side in sides)
        if len(counts) > 1:
            columns[column] = [(value, None if is_cut else n) for value, n in counts.most_common()]
    for column, value in chosen:
        offered = columns.setdefault(column, [])
        if value not in dict(offered):
            offered.append((value, None))
    return columns


def _selecting(question: InfluencesQuestion) -> str | None:
    """The command that writes the training data that a stored query's ranking leads with; None of another ranking."""
    if question.query is None or question.query_set is None or question.method != MethodName.LORIF or question.span:
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
    is_plain = not {"against", "weighted", "scalar"} & query.objective.keys()
    said = [part for part in query.parts if part.carries_loss] if is_plain else []
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
            "kept": hidden(resolved, leaving_out={"column"}),
        },
    )


def _movement(explorer: Explorer, question: MovementQuestion, path: str) -> str:
    checkpoint, query = explorer.stored_query(question, question.query)
    names = {"checkpoint": checkpoint, "query_set": query.query_set, "query": query.query_id}
    resolved = question.model_copy(update=names)
    return render(
        "movement",
        {
            "frame": frame_of(explorer, resolved, path, query.query_id),
            "to": address,
            "question": resolved,
            "query": query,
            "movement": explorer.movement(resolved).movement,
            "kept": hidden(resolved, leaving_out=_FILTERS),
        },
    )


def _example(explorer: Explorer, question: ExamplePage, path: str) -> str:
    found = explorer.example(question)
    origin = QuerySetQuestion(checkpoint=question.from_checkpoint, query_set=question.from_set)
    frame = frame_of(explorer, origin, path, question.from_query)
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
            "frame": frame_of(explorer, at, path, query.query_id if query else None),
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
    frame = frame_of(explorer, question, path)
    return render("trust", {"frame": frame, "to": address, "trust": explorer.trust(question)})


def _resolved(explorer: Explorer, question: Any, path: str) -> tuple[Any, Frame, ScoredQuery]:
    """A question with the names that its defaults stand for, so that its address stays true when a newer checkpoint comes."""
    checkpoint, query, _ = explorer.ranked(question)
    frame = frame_of(explorer, question.model_copy(update={"checkpoint": checkpoint}), path, query.query_id or None)
    names = {"checkpoint": checkpoint}
    if query.query_id:
        names |= {"query_set": query.query_set, "query": query.query_id}
    return question.model_copy(update=names), frame, query
