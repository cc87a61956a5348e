"""The questions by name: what the JSON API has as paths and an assistant as tools."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import getdoc
from operator import attrgetter
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lorif_assets.errors import SettingsError
from lorif_assets.explorer.answers import Progressed
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.questions import (
    ExampleQuestion,
    GroupsQuestion,
    InfluencesQuestion,
    MovementQuestion,
    OverviewQuestion,
    QueriesQuestion,
    Question,
    SelectionQuestion,
    TokensQuestion,
    TrustQuestion,
    WorkQuestion,
    WriteQuestion,
)
from lorif_assets.explorer.replies import Groups, Influences, Overview, Queries, QueryMovement
from lorif_assets.explorer.selecting import Selecting
from lorif_assets.explorer.selections import SelectedData, WrittenSelection
from lorif_assets.influences.example import Example
from lorif_assets.influences.trust import Trust
from lorif_assets.pages.token_colours import PairTokens

_Q = TypeVar("_Q", bound=Question)


@dataclass(frozen=True)
class Face:
    """A question: its name, its parameters, how the explorer answers it, and with what.

    `computes`: it starts work. `writes`: it leaves files behind. `part` of the explorer is what answers.
    """

    name: str
    question: type[Question]
    answer: Callable[[Any, Any], object]
    returns: type
    computes: bool = False
    writes: bool = False
    part: Callable[[Explorer], Any] = lambda explorer: explorer

    @property
    def acts(self) -> bool:
        """Whether it does more than tell: no link may ask it."""
        return self.computes or self.writes

    @property
    def summary(self) -> str:
        """What it tells, in a sentence."""
        return (getdoc(self.answer) or "").partition("\n")[0]

    def asked(self, explorer: Explorer, parameters: Mapping[str, Any]) -> object:
        """Return the answer as plain JSON values; numbers that are not finite are null.

        Raises:
            SettingsError: a parameter is wrong; the message says which, and what it can be.
            LorifError: as the explorer.
        """
        answer = self.answer(self.part(explorer), read_question(self.question, parameters))
        adapter: TypeAdapter[Any] = TypeAdapter(self.returns)
        return json.loads(adapter.dump_json(answer))


_SELECTING = attrgetter("selecting")

FACES = (
    Face("overview", OverviewQuestion, Explorer.overview, Overview),
    Face("queries", QueriesQuestion, Explorer.queries, Queries),
    Face("influences", InfluencesQuestion, Explorer.influences, Influences),
    Face("groups", GroupsQuestion, Explorer.groups, Groups),
    Face("movement", MovementQuestion, Explorer.movement, QueryMovement),
    Face("example", ExampleQuestion, Explorer.example, Example),
    Face("trust", TrustQuestion, Explorer.trust, Trust),
    Face("tokens", TokensQuestion, Explorer.tokens, PairTokens),
    Face("ask", WorkQuestion, Explorer.ask, Progressed, computes=True),
    Face("progress", WorkQuestion, Explorer.progress, Progressed),
    Face("select", SelectionQuestion, Selecting.select, Progressed, computes=True, part=_SELECTING),
    Face("selecting", SelectionQuestion, Selecting.progress, Progressed, part=_SELECTING),
    Face("selection", SelectionQuestion, Selecting.selection, SelectedData, part=_SELECTING),
    Face("write_selection", WriteQuestion, Selecting.write, WrittenSelection, writes=True, part=_SELECTING),
)


def read_question(kind: type[_Q], parameters: Mapping[str, Any]) -> _Q:
    """Return a question from its parameters, as an address, JSON or an assistant gives them.

    Raises:
        SettingsError: one is unknown or wrong; the message says which, and what it can be.
    """
    try:
        return kind.model_validate(parameters)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'parameters'}: "
            + ("there is no such parameter" if one["type"] == "extra_forbidden" else one["msg"])
            + ("" if one["type"] in {"missing", "value_error"} else f" (found {one['input']!r})")
            for one in error.errors()
        )
        raise SettingsError(f"{wrong}. Parameters: {', '.join(kind.model_fields) or 'none'}") from error


def require_characters(parameters: object) -> None:
    """Refuse parameters with a text that is none.

    Raises:
        SettingsError: one has half of a surrogate pair, which JSON can write and UTF-8 cannot.
    """
    try:
        json.dumps(parameters, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise SettingsError("the parameters have half of a surrogate pair, which no text has") from error
