"""The pages that have a question computed: the form that asks one, and what is shown until it is answered."""

from typing import Any

from lorif_assets.explorer.answers import Computed, Stage, said_of_member
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.frame import address, frame_of
from lorif_assets.explorer.questions import AskedQuestion, TokensQuestion, WorkQuestion
from lorif_assets.pages.explorer.page import render


def has_to_be_asked(explorer: Explorer, question: AskedQuestion) -> bool:
    """Whether a question is not answered yet, and no table has its answer."""
    if isinstance(question, TokensQuestion) and explorer.stored_tokens(question):
        return False
    return question.is_computed and explorer.progress(question).stage is not Stage.READY


def ask_page(explorer: Explorer, question: AskedQuestion, path: str) -> str:
    """The page of the form; where a question is asked already, it goes on to the answer."""
    if question.is_computed:
        return asking_page(explorer, question, path, address("/query", question))
    frame = frame_of(explorer, question, path)
    content = {"frame": frame, "to": address, "asked": question, "query": None, "question": None, "then": ""}
    return render("ask", content)


def asking_page(explorer: Explorer, question: AskedQuestion, path: str, then: str) -> str:
    """The page that has a question computed, shows what it is about and how far it is, and goes on to an address."""
    kind = WorkQuestion if isinstance(question, WorkQuestion) else AskedQuestion
    asked = kind(**{name: getattr(question, name) for name in kind.model_fields})
    _, query = explorer.asked_query(question)
    return render(
        "ask",
        {
            "frame": frame_of(explorer, question, path, query.query_id if query else None),
            "to": address,
            "asked": asked if question.asked is None else _said_before(explorer.computed(question)),
            "query": query,
            "question": asked.model_dump_json(exclude_defaults=True),
            "then": then,
            "title": _title(question),
        },
    )


def _title(question: AskedQuestion) -> str:
    if isinstance(question, WorkQuestion) and question.example:
        return f"Which words of {question.example}?"
    return "Which examples made it say this part?" if question.span else "Scoring every example"


def _said_before(computed: Computed) -> AskedQuestion:
    """What a key stands for, as the form has it: it is not in the address."""
    own: dict[str, Any] = {name: getattr(computed, name) for name in ("prompt", "completion", "against", "chat")}
    if computed.weighted:
        is_chat = "messages" in computed.weighted[0]
        own = {"weighted": tuple(map(said_of_member, computed.weighted)), "chat": is_chat}
    return AskedQuestion(**own)
