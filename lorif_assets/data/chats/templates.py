"""A tokenizer's chat template, rendered: what goes in is plain data, what it raises is why a row is set aside."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Self

from lorif_assets.data.chats.conversations import Conversation, Message
from lorif_assets.data.chats.template_dates import ASKS, MACRO, date_pieces
from lorif_assets.data.chats.template_worker import LONGEST_TEXT, MEBIBYTES, answers_apart
from lorif_assets.data.limited_process import OverrunError
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""First character and end of a piece of a text."""

_TYPE = "type"
_SAID = "said"
_DRAWS = re.compile(r"\|\s*random\b|\blipsum\b")
_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with what it may write beside messages: special tokens, the date, definitions of tools, arguments.

    `tokenizer` is the name of the one that it belongs to, for messages. A conversation is rendered alike at all times:
    today's date and draws at random are always the same.
    """

    tokenizer: str
    source: str
    special_tokens: Mapping[str, Any]
    pieces_of_date: Mapping[str, str]
    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    takes_parts: bool = False
    """Whether messages' content is given to it in parts, as templates of models that see images may have it alone."""
    render: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = field(default=None, compare=False)
    """What renders it in this process; None: another process, with limits."""

    def of(self, conversation: Conversation) -> Self:
        """Return the template with what a conversation's row has for it."""
        return replace(self, tools=conversation.tools, arguments=conversation.arguments)

    @property
    def description(self) -> Mapping[str, Any]:
        """Its fields as JSON can hold them, without what a conversation has for it."""
        names = ("tokenizer", "source", "special_tokens", "pieces_of_date", "takes_parts")
        return {name: getattr(self, name) for name in names}

    @property
    def marks_turns(self) -> bool:
        """Whether it says itself what the assistant generates, by `{% generation %}`."""
        return _GENERATION_BLOCK.search(self.source) is not None

    @property
    def draws(self) -> bool:
        """Whether it may draw at random."""
        return _DRAWS.search(self.source) is not None

    def writes_date(self, messages: Sequence[Message], text: str) -> bool:
        """Whether a conversation's text has, or depends on, what the template takes for today's date."""
        if ASKS not in self.source:
            return False
        try:
            return replace(self, pieces_of_date=dict.fromkeys(self.pieces_of_date, "")).text(messages) != text
        except UnusableRowError:
            return True

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the conversation as text.

        Raises:
            UnusableRowError: the template raises, whatever it is, or goes beyond its limits.
            CheckpointError: it has gone beyond them on too many conversations.
        """
        return self._rendered(messages, add_generation_prompt=add_generation_prompt)[0]

    def marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """Return the conversation as text, and what of it the template marks as generated.

        Raises:
            UnusableRowError: the template raises, whatever it is, or goes beyond its limits.
            CheckpointError: it has gone beyond them on too many conversations.
        """
        # Not `apply_chat_template(return_assistant_tokens_mask=True)`: where a turn begins or ends in white space that
        # the tokenizer leaves out of its offsets, that mask loses turns or covers the user's (transformers issue 47325).
        return self._rendered(messages, return_assistant_tokens_mask=True)

    def _rendered(self, messages: Sequence[Message], **how: bool) -> tuple[str, list[Span]]:
        arguments = {
            **self.special_tokens,
            **self.arguments,
            **how,
            "tools": list(self.tools) or None,
            "chat_template": self._whole_source,
            "date_pieces": self.pieces_of_date,
        }
        shown = list(map(_in_parts, messages) if self.takes_parts else messages)
        request = {"messages": shown, "arguments": arguments}
        answer = self.render(request) if self.render else self._apart(request)
        if "text" not in answer:
            raise UnusableRowError(self._reason(answer))
        return answer["text"], [(start, end) for start, end in answer["spans"]]

    def _apart(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        (answer,) = answers_apart(self.owner, self.source, {"request": request})
        if isinstance(answer, OverrunError):
            raise UnusableRowError(self.overrun(answer)) from answer
        return answer

    def overrun(self, error: OverrunError) -> str:
        """Return in words that the template has ended its process."""
        return f"the chat template of {self.owner} {error}"

    @property
    def too_much_memory(self) -> str:
        """Why a conversation cannot be used for which the template takes too much memory."""
        return f"the chat template of {self.owner} takes more than {MEBIBYTES:,} MiB of memory"

    @property
    def owner(self) -> str:
        """Whose it is, in words."""
        return f"tokenizer '{self.tokenizer}'"

    @property
    def _whole_source(self) -> str:
        return (MACRO if ASKS in self.source else "") + self.source

    def _reason(self, failure: Mapping[str, Any]) -> str:
        template = f"the chat template of {self.owner}"
        if characters := failure.get("characters"):
            return f"{template} writes {characters:,} characters, more than the {LONGEST_TEXT:,} that it may"
        if failure["refusal"]:
            return f"the chat template refuses the messages: {failure['reason']}"
        if failure["error"] == "MemoryError":
            return self.too_much_memory
        above = MACRO.count("\n") if ASKS in self.source else 0
        where = f" at its line {failure['line'] - above}" if failure["line"] else ""
        return f"{template} fails on the messages{where}: {failure['error']}: {failure['reason']}"


def chat_template(tokenizer: "PreTrainedTokenizerBase", day: date, *, for_tools: bool = False) -> ChatTemplate:
    """Return a tokenizer's chat template: of several, the one named `default`, or `tool_use` for rows with tools.

    `day` is what it takes for today.

    Raises:
        CheckpointError: the tokenizer has none, or several and none of these, or is no fast one (which alone knows where
            in a text a token lies).
    """
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"tokenizer '{name}' is not a fast one (no tokenizer.json), which chat messages need. Save it as a fast "
            "tokenizer, or give the source prompt and completion, text or input_ids instead."
        )
    source = tokenizer.chat_template
    if isinstance(source, dict) and source:
        wanted = [key for key in (*(["tool_use"] if for_tools else []), "default") if key in source]
        if not wanted and len(source) > 1:
            raise CheckpointError(
                f"tokenizer '{name}' has the chat templates {', '.join(sorted(source))}, and none named default. Put the one "
                "that the model was trained with beside its tokenizer.json as chat_template.jinja."
            )
        source = source[wanted[0] if wanted else next(iter(source))]
    if not source:
        raise CheckpointError(
            f"tokenizer '{name}' has no chat template, which chat messages need. Put chat_template.jinja beside its "
            "tokenizer.json, or give the source prompt and completion, text or input_ids instead."
        )
    template = ChatTemplate(name, str(source), tokenizer.special_tokens_map, date_pieces(day))
    return replace(template, takes_parts=_shows_parts_alone(template))


def _shows_parts_alone(template: ChatTemplate) -> bool:
    """Whether a template that tells parts by their types leaves out what is no part: it looks for parts among the letters."""
    if _TYPE not in template.source:
        return False
    as_text, in_parts = (_shows(replace(template, takes_parts=takes_parts)) for takes_parts in (False, True))
    return in_parts and not as_text


def _shows(template: ChatTemplate) -> bool:
    try:
        return _SAID in template.text([{"role": "user", "content": _SAID}])
    except UnusableRowError:
        return False


def _in_parts(message: Message) -> Message:
    """Return a message with its content, if that is text, as one part of text."""
    content = message.get("content")
    return {**message, "content": [{_TYPE: "text", "text": content}]} if isinstance(content, str) else message
