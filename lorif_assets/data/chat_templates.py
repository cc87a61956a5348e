"""A tokenizer's chat template, rendered: what goes in is plain data, what it raises is why a row is set aside."""

import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from lorif_assets.data.conversations import Message
from lorif_assets.data.rejected import UnusableRowError
from lorif_assets.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""First character and end of a piece of a text."""

_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with what it may write beside messages: special tokens and definitions of tools.

    `tokenizer` is the name of the one that it belongs to, for messages.
    """

    tokenizer: str
    source: str
    special_tokens: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]] = ()

    @property
    def marks_turns(self) -> bool:
        """Whether it says itself what the assistant generates, by `{% generation %}`."""
        return _GENERATION_BLOCK.search(self.source) is not None

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the conversation as text.

        Raises:
            UnusableRowError: the template raises, whatever it is.
        """
        return self._render(messages, add_generation_prompt=add_generation_prompt)[0]

    def marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """Return the conversation as text, and what of it the template marks as generated.

        Raises:
            UnusableRowError: the template raises, whatever it is.
        """
        # Not `apply_chat_template(return_assistant_tokens_mask=True)`: where a turn begins or ends in white space that
        # the tokenizer leaves out of its offsets, that mask loses turns or covers the user's (transformers issue 47325).
        return self._render(messages, return_assistant_tokens_mask=True)

    def _render(self, messages: Sequence[Message], **how: bool) -> tuple[str, list[Span]]:
        try:
            (text,), spans = render_jinja_template(
                [list(messages)],
                tools=list(self.tools) or None,
                chat_template=self.source,
                **how,
                **self.special_tokens,
            )
        # A template is a program of the checkpoint's: what it raises depends on the row, and concerns no other row.
        except Exception as error:
            raise UnusableRowError(self._reason(error)) from error
        return str(text), list(spans[0]) if spans else []

    def _reason(self, error: Exception) -> str:
        if type(error) is jinja2.TemplateError:
            return f"the chat template refuses the messages: {error}"
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
        where = f" at its line {lines[-1]}" if lines else ""
        return (
            f"the chat template of tokenizer '{self.tokenizer}' fails on the messages{where}: "
            f"{type(error).__name__}: {error}"
        )


def chat_template(tokenizer: "PreTrainedTokenizerBase", *, for_tools: bool = False) -> ChatTemplate:
    """Return a tokenizer's chat template: of several, the one named `default`, or `tool_use` for rows with tools.

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
    return ChatTemplate(name, str(source), tokenizer.special_tokens_map)
