"""Long texts on which a tokenizer's regular expressions would hold a run up for hours: found in a process with a limit.

The library counts the steps of one match, and gives up on exponential ones (see `tokenizer_faults`). It does not count the
matches: an expression that goes through the rest of the text from each of its characters takes as many steps as the square
of its length. Tokenizers without regular expressions of their own, as GPT-2's, are not tried, nor are those written in
Python.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.limited_process import LimitedProcess
from lorif_assets.data.rows.unusable import UnusableRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 10
"""Of the processor, for one text."""
MEBIBYTES = 8_192
"""Of memory, for one text."""
LONG = 2_000
"""Characters; the square of fewer is no time."""
_PATTERN = b'"Regex"'
# What follows the expressions is of no account: one token is all that there is.
_REST: Mapping[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""},
}


class _Worker(LimitedProcess):
    program = Path(__file__).with_name("tokenizer_program.py")
    purpose = "tries tokenizers"

    def limits(self) -> Sequence[int]:
        return MEBIBYTES, SECONDS

    def overruns(self, tokenizer: str, texts: Sequence[str]) -> dict[int, str]:
        """Return how texts went beyond the limits, by their places."""
        found: dict[int, str] = {}
        with self._lock:
            first, killed_at = 0, -1
            while first < len(texts):
                question = json.dumps({"tokenizer": tokenizer, "texts": texts[first:]}).encode()
                first += len(self._asked(question, len(texts) - first))
                if first < len(texts):
                    ended = self._end()
                    if self._status == -signal.SIGKILL and killed_at != first:
                        # By somebody else, perhaps for memory that the machine lacked: the text is tried once more.
                        killed_at = first
                        continue
                    found[first] = ended
                    first += 1
        return found


_worker = _Worker()
os.register_at_fork(after_in_child=_worker.forget)


def overruns(rows: Sequence[Mapping[str, Any]], tokenizer: "PreTrainedTokenizerBase") -> dict[int, UnusableRowError]:
    """Return why rows cannot be tokenized in a time that is to be waited for, by their places among the rows.

    Args:
        rows: with the columns of an example's content.
        tokenizer: whose regular expressions are tried.
    """
    stages = _expressions(tokenizer)
    if stages is None:
        return {}
    pieces = [(k, text) for k, row in enumerate(rows) for text in _long_texts(row)]
    found = _worker.overruns(json.dumps({**_REST, **stages}), [text for _, text in pieces]) if pieces else {}
    return {
        pieces[place][0]: UnusableRowError(
            f"the tokenizer's regular expressions on {len(pieces[place][1]):,} characters: {how}"
        )
        for place, how in found.items()
    }


def _expressions(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any] | None:
    """Return the stages of a tokenizer that have regular expressions; None where there is none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    states = {name: _state(getattr(backend, name, None)) for name in ("normalizer", "pre_tokenizer")}
    if not any(_PATTERN in state for state in states.values()):
        return None
    return {name: json.loads(state) for name, state in states.items()}


def _state(stage: Any) -> bytes:
    """Return a stage of a tokenizer as JSON; null where there is none, or it is written in Python."""
    try:
        state: bytes = b"null" if stage is None else stage.__getstate__()
    # The library has no other kind of exception.
    except Exception:
        return b"null"
    return state


def _long_texts(row: Mapping[str, Any]) -> Iterator[str]:
    texts = [row.get("text"), "".join(filter(None, (row.get("prompt"), row.get("completion"))))]
    messages = row.get("messages")
    if messages and len(messages) >= LONG:
        texts += _strings(json.loads(messages))
        # They are tokenized as one text, with what the template writes between them.
        texts.append("".join(str(message.get("content", "")) for message in Conversation.parse(messages).messages))
    yield from (text for text in texts if text and len(text) >= LONG)


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for inner in value:
                yield from _strings(inner)
        case dict():
            for inner in value.values():
                yield from _strings(inner)
