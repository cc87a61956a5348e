"""Chats to labelled tokens, beside their text rendered once and tokenized without labels, in turn.

The second is what a trainer does that takes the loss on everything: `apply_chat_template`, in one process. Rows are of
random words.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from measurements import interleaved, markdown_table, report, setting_and_output

from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.labels import LabelledTokens
from lorif_assets.data.tokens.chat import encode_conversations
from lorif_assets.demo.tokenizer import train_tokenizer

PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
# Each beginning of a conversation is the beginning of its text.
CONTINUES = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}" + PROMPT
)
# Thoughts are shown behind the last question alone, so that earlier turns are rendered otherwise once there is another one.
FORGETS_THOUGHTS = CONTINUES.replace(
    "{% for m in messages %}",
    "{% set asked = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set asked.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}",
).replace("{{ m.content }}", "{{ m.content if loop.index0 > asked.last else m.content.split('</think>')[-1] }}")
COLUMNS = {
    "chats": "{chats}",
    "tokens of a chat": "{length:,.0f}",
    "chats/s": "{rate:.1f}",
    "tokens/s": "{tokens:,.0f}",
    "rendered once, tokens/s": "{bare:,.0f}",
    "times its time": "{ratio:.1f}",
}


@dataclass(frozen=True)
class Setting:
    """How many tokens of chats there are of each kind, and how often they are read."""

    tokens: int = 200_000
    repeats: int = 5
    seed: int = 0


def words(draw: random.Random, number: int) -> str:
    """Return random words."""
    return " ".join("".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(number))


def short(draw: random.Random) -> dict[str, Any]:
    """Return a question and its answer."""
    return {"messages": [_said("user", words(draw, 30)), _said("assistant", words(draw, 120))]}


def long(draw: random.Random) -> dict[str, Any]:
    """Return some questions and their answers."""
    return {"messages": [message for _ in range(4) for message in short(draw)["messages"]]}


def calling(draw: random.Random, calls: int = 3) -> dict[str, Any]:
    """Return a question, calls of tools with their results, the answer, and another question with its answer."""
    name = words(draw, 1)
    tool = {"description": words(draw, 30), "parameters": {words(draw, 1): {"type": "string"} for _ in range(4)}}
    tools = [{"type": "function", "function": {"name": name, **tool}} for _ in range(10)]
    turns = [message for _ in range(calls) for message in (_call(draw, name), _said("tool", words(draw, 80)))]
    messages = [_said("user", words(draw, 30)), *turns, _said("assistant", words(draw, 60)), *short(draw)["messages"]]
    return {"messages": messages, "tools": tools}


def agent(draw: random.Random) -> dict[str, Any]:
    """Return the trace of an agent."""
    return calling(draw, calls=40)


KINDS: dict[str, tuple[Callable[[random.Random], dict[str, Any]], str]] = {
    "of one answer": (short, CONTINUES),
    "of four answers": (long, CONTINUES),
    "of four answers, earlier thoughts dropped": (long, FORGETS_THOUGHTS),
    "with tools, 3 calls": (calling, CONTINUES),
    "with tools, 3 calls, earlier thoughts dropped": (calling, FORGETS_THOUGHTS),
    "of an agent, 40 calls": (agent, CONTINUES),
    "of an agent, 40 calls, earlier thoughts dropped": (agent, FORGETS_THOUGHTS),
}


def measured(setting: Setting, kind: str) -> dict[str, Any]:
    """Return how fast chats of one kind become labelled tokens, and how fast tokens alone."""
    make, template = KINDS[kind]
    draw = random.Random(setting.seed)
    tokenizer = train_tokenizer((words(draw, 200) for _ in range(50)), 4_000, 1 << 20)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    rows, total = list[dict[str, Any]](), 0
    while total < setting.tokens:
        rows.append(make(draw))
        total += len(_rendered_once(rows[-1:], tokenizer)[0])
    chats = [Conversation.of(row) for row in rows]
    for encoded in encode_conversations(chats[:8], tokenizer):
        if not isinstance(encoded, LabelledTokens):
            raise encoded
    works = {
        "labelled": lambda: encode_conversations(chats, tokenizer),
        "bare": lambda: _rendered_once(rows, tokenizer),
    }
    taken = {name: seconds.wall for name, seconds in interleaved(works, setting.repeats).items()}
    return {
        "chats": kind,
        "length": total / len(rows),
        "rate": len(rows) / taken["labelled"],
        "tokens": total / taken["labelled"],
        "bare": total / taken["bare"],
        "ratio": taken["labelled"] / taken["bare"],
    }


def _rendered_once(rows: Sequence[dict[str, Any]], tokenizer: Any) -> list[list[int]]:
    texts = [tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False) for row in rows]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids


def _said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _call(draw: random.Random, name: str) -> dict[str, Any]:
    function = {"name": name, "arguments": {words(draw, 1): words(draw, 8)}}
    content = f"<think>{words(draw, 40)}</think>{words(draw, 5)}"
    return {**_said("assistant", content), "tool_calls": [{"type": "function", "function": function}]}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "chat_tokens")
    rows = [measured(setting, kind) for kind in KINDS]
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
