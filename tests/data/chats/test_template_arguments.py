"""Arguments that a row has for its chat template, as TRL reads them, reach it."""

import json
from typing import Any

import pytest

from lorif_assets.config.sources import Columns
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.query_objectives import NO_SCALARS
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.preview import PreviewedRow, preview_rows
from lorif_assets.data.questions import conversation_question, row_question
from tests.data.chats.test_turns import CHAT, previewed
from tests.data.conftest import make_tokenizer

THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ '<think></think>' if m.role == 'assistant' and loop.last }}{{ m.content }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{{ '<think></think>' if enable_thinking is false }}"
    "{% endif %}"
)


def loss(row: PreviewedRow) -> list[str]:
    assert row.rejected is None
    return [piece.text for piece in row.pieces if piece.loss]


@pytest.mark.parametrize("arguments", [{"enable_thinking": False}, '{"enable_thinking": false}'])
def test_what_the_generation_prompt_writes_by_them_carries_no_loss(arguments: Any) -> None:
    assert loss(previewed(THINKS, CHAT)) == ["hello you<|end|>", "<think></think>quick<|end|>"]
    assert loss(previewed(THINKS, CHAT, chat_template_kwargs=arguments)) == ["hello you<|end|>", "quick<|end|>"]


@pytest.mark.parametrize("arguments", [None, {}, "", {"enable_thinking": None}])
def test_a_row_without_them_is_rendered_as_ever(arguments: Any) -> None:
    assert previewed(THINKS, CHAT, chat_template_kwargs=arguments) == previewed(THINKS, CHAT)


def test_they_are_arguments_beside_tools_and_in_any_column_that_the_settings_name() -> None:
    template = "{{ style }}{{ tools | length }}" + THINKS
    row = {"messages": CHAT, "tools": [{"name": "f"}], "how": {"style": "brief"}}
    raw = RawShard("rows", tuple(row), ((0, row),))
    columns = Columns(messages="messages", tools="tools", chat_template_kwargs="how")
    (read,) = preview_rows(raw, columns, "s-00000", make_tokenizer(chat_template=template), 512, 300)
    assert read.pieces[0].text.startswith("brief1<|user|>")


def test_a_question_that_is_asked_at_once_has_them_too() -> None:
    row = {"messages": CHAT, "chat_template_kwargs": {"enable_thinking": False}, "tools": [{"name": "f"}]}
    for question in (row_question(row, NO_SCALARS), conversation_question(row, "the chat")):
        asked = Conversation.parse(question["messages"])
        assert (asked.arguments, len(asked.tools)) == ({"enable_thinking": False}, 1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"messages": []}, "chat_template_kwargs has messages, which is not for a row to say"),
        ({"add_generation_prompt": True}, "chat_template_kwargs has add_generation_prompt, which"),
        ("no", "chat_template_kwargs is text, but no JSON"),
        ([1], "chat_template_kwargs is list, not an object or its JSON text"),
        (json.dumps({"a": "\ud800"}), "chat_template_kwargs is not valid Unicode"),
    ],
)
def test_what_cannot_be_their_arguments_sets_the_row_aside(arguments: Any, reason: str) -> None:
    assert str(previewed(THINKS, CHAT, chat_template_kwargs=arguments).rejected).startswith(reason)
