"""Conversations as text, and where in it the assistant speaks: what carries loss.

Where the template marks the assistant's turns with `{% generation %}`, those marks are used; otherwise see `turns`. A
message that the row marks as untrained (weight 0, train false) carries no loss, nor does one of which the rendering
shows nothing; what else a rendering leaves out is noticed.
"""

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from threading import Event

from lorif_assets.data.chats.conversations import LOSS_MARKS, Conversation, Message, is_trained
from lorif_assets.data.chats.spoken_content import kinds_left_out, spoken
from lorif_assets.data.chats.template_worker import Answer, answers_apart, interrupt, n_workers
from lorif_assets.data.chats.templates import ChatTemplate, Span
from lorif_assets.data.chats.tool_arguments import fitting_arguments
from lorif_assets.data.chats.turns import ChatTurns
from lorif_assets.data.limited_process import OverrunError
from lorif_assets.data.rows.unusable import UnusableRowError

NO_TOOLS = "the chat template takes no tool definitions: the model does not see those of the row"
OTHERS_TRAINED = "a message of another role is marked as trained; the loss is on the assistant's messages alone"
WRITES_DATE = "the chat template writes today's date, for which recipe.template_date stands"
DRAWS = "the chat template draws at random: what the model saw may be another draw"
DROPPED = "the chat template leaves out all that a message of the assistant says; such messages carry no loss"


# Conversations in one question to a process, at most.
_AT_ONCE = 8
_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Rendering:
    """A conversation as text, where in it the assistant speaks, and what of the row is rendered otherwise."""

    text: str
    turns: Sequence[Span]
    notices: Sequence[str] = ()


def rendered_apart(
    conversations: Sequence[Conversation], template: ChatTemplate, control_tokens: frozenset[str]
) -> list[Rendering | UnusableRowError]:
    """Return the rendering of each conversation by processes with limits, several at a time, or why there is none.

    Raises:
        CheckpointError: the template goes beyond its limits on too many conversations.
    """
    at_once = min(_AT_ONCE, -(-len(conversations) // n_workers()))
    some = [conversations[first : first + at_once] for first in range(0, len(conversations), max(at_once, 1))]
    # Threads wait for the processes.
    with ThreadPoolExecutor(n_workers(), "render") as threads:
        stopped = Event()
        ask = partial(_some_apart, template=template, control_tokens=control_tokens, stopped=stopped)
        asked = [threads.submit(ask, conversations) for conversations in some]
        try:
            _wait(asked)
            return [rendering for renderings in asked for rendering in renderings.result()]
        except BaseException as error:
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                # Who interrupts does not wait for what is being rendered.
                interrupt()
            raise


def _wait(asked: Sequence["Future[list[Rendering | UnusableRowError]]"]) -> None:
    """Wait for all, or for the first that fails."""
    pending = {*asked}
    while pending:
        # With the handlers that some libraries set, an interrupt ends no wait that has no end itself.
        done, pending = wait(pending, _WAIT_SECONDS, FIRST_EXCEPTION)
        for one in done:
            one.result()


def _some_apart(
    conversations: Sequence[Conversation], template: ChatTemplate, control_tokens: frozenset[str], stopped: Event
) -> list[Rendering | UnusableRowError]:
    question = {"template": template.description, "control_tokens": sorted(control_tokens)}
    fields = [conversation.fields() for conversation in conversations]
    found: list[Rendering | UnusableRowError] = []
    while (left := fields[len(found) :]) and not stopped.is_set():
        asked = {"batch": {**question, "conversations": left}}
        found += [
            _told(answer, template) for answer in answers_apart(template.owner, template.source, asked, len(left))
        ]
    return found


def _told(answer: Answer, template: ChatTemplate) -> Rendering | UnusableRowError:
    if isinstance(answer, OverrunError):
        return UnusableRowError(template.overrun(answer))
    return UnusableRowError(answer["unusable"]) if "unusable" in answer else Rendering(**answer)


def rendered(messages: Sequence[Message], template: ChatTemplate, control_tokens: frozenset[str]) -> Rendering:
    """Return a conversation's rendering; `control_tokens` are the tokenizer's (<|im_end|> and the like).

    Raises:
        UnusableRowError: the template raises, or where the assistant speaks cannot be told.
    """
    messages, notice = fitting_arguments(messages, template)
    turns = ChatTurns(messages, template, control_tokens)
    text, marks = template.marked(messages) if template.marks_turns else (turns.text, [])
    spans, notices = _loss_spans(turns, text, marks)
    if notice:
        notices.append(notice)
    if template.tools and not _takes_tools(template, messages, text):
        notices.append(NO_TOOLS)
    if template.writes_date(messages, text):
        notices.append(WRITES_DATE)
    if template.draws:
        notices.append(DRAWS)
    return Rendering(text, tuple(spans), tuple(dict.fromkeys(notices)))


def _loss_spans(turns: ChatTurns, text: str, marks: Sequence[Span]) -> tuple[list[Span], list[str]]:
    """Where in the text the assistant speaks, and what a person should know of it.

    Raises:
        UnusableRowError: that cannot be told, or nothing that it says is in the text.
    """
    answers = [k for k, message in enumerate(turns.messages) if message["role"] == "assistant"]
    untrained = {k for k in answers if not is_trained(turns.messages[k])}
    notices = [OTHERS_TRAINED] if any(map(_asks_for_loss, turns.messages)) else []
    if marks and len(marks) != len(answers):
        # Which of them are of which message is not known.
        without_loss = [span for k in untrained for span in turns.spans(k)]
        return [mark for mark in marks if not any(map(partial(_overlap, mark), without_loss))], notices
    spans = (
        {k: [mark] for k, mark in zip(answers, marks, strict=True)} if marks else {k: turns.spans(k) for k in answers}
    )
    shown = {k: "".join(text[slice(*span)] for span in of_answer) for k, of_answer in spans.items()}
    dropped = {k for k in answers if _is_dropped(turns, k, shown[k])}
    kept = {k: of_answer for k, of_answer in spans.items() if of_answer and k not in dropped}
    if dropped and kept.keys() <= untrained:
        raise UnusableRowError("the chat template leaves out everything that the assistant says")
    notices += [DROPPED] if dropped - untrained else []
    for k, message in enumerate(turns.messages):
        if k not in dropped:
            where = shown[k] if k in kept else text
            notices += [_left_out(kind, message["role"]) for kind in kinds_left_out(spoken(message), where)]
    return [span for k, of_answer in kept.items() if k not in untrained for span in of_answer], notices


def _takes_tools(template: ChatTemplate, messages: Sequence[Message], text: str) -> bool:
    """Whether a conversation's text is another one with its tool definitions than without."""
    try:
        return replace(template, tools=()).text(messages) != text
    except UnusableRowError:
        return True


def _is_dropped(turns: ChatTurns, k: int, shown: str) -> bool:
    """Whether the template leaves out all that an assistant's message says, so that only its frame, if any, is shown."""
    said = spoken(turns.messages[k])
    if not shown or not said:
        return bool(said)
    # A template may also write what is said otherwise than it is: only one that shows no stand-in either leaves it out.
    return len(kinds_left_out(said, shown)) == len(said) and turns.answer(k) is None


def _asks_for_loss(message: Message) -> bool:
    return message["role"] != "assistant" and any(message.get(mark) for mark in LOSS_MARKS)


def _overlap(one: Span, other: Span) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _left_out(kind: str, role: str) -> str:
    return f"the chat template leaves out {kind} of a message by '{role}', or changes it"
