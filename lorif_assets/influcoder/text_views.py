"""What the encoder reads of an example or a query, whatever its format."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

INSTRUCTION = "Find training texts that taught a language model to answer like this"

Decode = Callable[[Sequence[int]], str]


def pool_text(row: Mapping[str, Any], decode: Decode) -> str:
    """Return a training example as the encoder reads it: the request, a new line, the answer.

    Of a conversation, the first turns of user and assistant. `decode` turns token ids into text.
    """
    request, answer = _request_and_answer(row, decode)
    return f"{request}\n{answer}" if request else answer


def anchor_text(row: Mapping[str, Any], decode: Decode) -> str:
    """Return a query, or an example used as one, as the encoder reads it: after an instruction."""
    request, answer = _request_and_answer(row, decode)
    body = f"Q: {request}\nA: {answer}" if request else answer
    return f"Instruct: {INSTRUCTION}\nQuery: {body}"


def _request_and_answer(row: Mapping[str, Any], decode: Decode) -> tuple[str, str]:
    match row["format"]:
        case "text":
            return "", str(row["text"]).strip()
        case "prompt_completion":
            return str(row["prompt"]).strip(), str(row["completion"]).strip()
        case "messages":
            turns = json.loads(row["messages"])
            return _first(turns, "user"), _first(turns, "assistant")
        case _:
            return "", decode(row["input_ids"]).strip()


def _first(turns: Sequence[Mapping[str, Any]], role: str) -> str:
    return next((str(turn["content"]).strip() for turn in turns if turn["role"] == role), "")
