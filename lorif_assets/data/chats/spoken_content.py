"""What a message says (content, reasoning, tool calls), and which of it a rendering shows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
SPOKEN_FIELDS = ("content", *REASONING_FIELDS, "tool_calls", "function_call")
_END_OF_THINKING = "</think>"


def spoken(message: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a message says, by kind: texts that a rendering of it shows, if it leaves nothing out.

    Of a tool call, its name. What `content` holds up to `</think>` is reasoning.
    """
    thinking, closed, answer = _text(message.get("content")).rpartition(_END_OF_THINKING)
    reasoning = [thinking.strip().removeprefix("<think>")] if closed else []
    reasoning += [_text(message.get(field)) for field in REASONING_FIELDS]
    calls = message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])
    names = [_name(call) for call in calls] if isinstance(calls, list) else []
    said = {"content": [answer], "reasoning": reasoning, "tool calls": names}
    filled = {kind: [text for text in texts if text.strip()] for kind, texts in said.items()}
    return {kind: texts for kind, texts in filled.items() if texts}


def kinds_left_out(said: Mapping[str, Sequence[str]], text: str) -> list[str]:
    """Kinds of which a text does not show everything, as it is or as in JSON; white space, which is stripped, aside."""
    shown = _dense(text)
    return [
        kind
        for kind, texts in said.items()
        if any(_dense(said) not in shown and _dense(_in_json(said)) not in shown for said in texts)
    ]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""


def _name(call: Any) -> str:
    if not isinstance(call, Mapping):
        return ""
    function = call.get("function")
    return _text((function if isinstance(function, Mapping) else call).get("name"))


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _dense(text: str) -> str:
    return "".join(text.split())
