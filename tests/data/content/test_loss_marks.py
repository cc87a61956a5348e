"""Marks on a message that take its loss away, and answers of preference data that were turned down."""

from typing import Any

import pytest

from lorif_assets.config.sources import Columns
from lorif_assets.data.chats.renderings import DROPPED, OTHERS_TRAINED
from lorif_assets.data.examples import normalise
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.preview import PreviewedRow, preview_rows
from tests.data.chats.test_spoken_content import OTHER_PARTS
from tests.data.chats.test_turns import CHAT, PROMPT, QUESTIONS_FIRST, RETURNS, previewed
from tests.data.conftest import make_tokenizer

MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}" + PROMPT
)
TWO_MARKS = MARKED.replace("{{ m.content }}<|end|>{%", "{{ m.content }}{% endgeneration %}{% generation %}<|end|>{%", 1)


def loss(template: str, messages: list[dict[str, Any]]) -> list[str]:
    row = previewed(template, messages)
    assert row.rejected is None
    return [piece.text for piece in row.pieces if piece.loss]


@pytest.mark.parametrize("template", [RETURNS.replace("</s>", "<|end|>"), MARKED, TWO_MARKS, QUESTIONS_FIRST])
@pytest.mark.parametrize(
    "mark",
    [
        {"weight": 0},
        {"weight": 0.0},
        {"train": False},
        {"training": False},
        {"trainable": False},
        {"loss": False},
        {"loss_mask": 0},
        {"weight": 1, "train": False},
    ],
    ids=str,
)
def test_a_message_that_is_marked_carries_no_loss_and_the_others_do(template: str, mark: dict[str, Any]) -> None:
    first, second = [*CHAT[:1], {**CHAT[1], **mark}, *CHAT[2:]], [*CHAT[:3], {**CHAT[3], **mark}]
    assert loss(template, first) == ["quick<|end|>"]
    assert loss(template, second) == ["hello you<|end|>"]


@pytest.mark.parametrize("mark", [{"weight": 1}, {"weight": 1.0}, {"train": True}, {"loss_mask": None}], ids=str)
def test_other_marks_take_nothing_away(mark: dict[str, Any]) -> None:
    assert loss(MARKED, [*CHAT[:3], {**CHAT[3], **mark}]) == ["hello you<|end|>", "quick<|end|>"]


def test_a_row_whose_answers_are_all_marked_is_set_aside() -> None:
    row = previewed(MARKED, [{**message, "weight": 0} for message in CHAT])
    assert row.rejected == "every assistant message is marked as carrying no loss (weight 0, train false or the like)"


def test_a_row_whose_only_trained_answer_is_left_out_is_set_aside() -> None:
    row = previewed(OTHER_PARTS, [*CHAT[:3], {**CHAT[3], "train": False}])
    assert row.rejected == "the chat template leaves out everything that the assistant says"


def test_an_untrained_answer_that_is_left_out_is_no_news() -> None:
    template = MARKED.replace("m.content }}<|end|>{% endgen", "m.content.split('</think>')[-1] }}<|end|>{% endgen")
    row = previewed(template, [CHAT[0], {**CHAT[1], "content": "<think>hm</think>", "weight": 0}, *CHAT[2:]])
    assert DROPPED not in row.notices


def test_a_mark_on_another_role_asks_for_no_loss_and_that_is_said() -> None:
    messages = [{**CHAT[0], "train": True}, *CHAT[1:]]
    assert loss(MARKED, messages) == ["hello you<|end|>", "quick<|end|>"]
    assert previewed(MARKED, messages).notices == (OTHERS_TRAINED,)


@pytest.mark.parametrize(
    ("mark", "shown"), [({"weight": 0.5}, "0.5"), ({"train": "no"}, '"no"'), ({"loss_mask": [0, 1]}, "[0, 1]")], ids=str
)
def test_a_mark_that_is_none_sets_the_row_aside(mark: dict[str, Any], shown: str) -> None:
    (name,) = mark
    row = previewed(MARKED, [*CHAT[:3], {**CHAT[3], **mark}])
    assert row.rejected == f"{name} of message 3 is {shown}; a mark for loss is 0, 1, false or true"


def test_the_mark_enters_the_content_hash() -> None:
    shards = [
        normalise(RawShard("rows", ("messages",), ((0, {"messages": messages}),)), Columns(), "s")
        for messages in (CHAT, [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT[2:]])
    ]
    assert shards[0].shard_hash != shards[1].shard_hash


def labelled(content: dict[str, Any], **columns: Any) -> list[PreviewedRow]:
    rows = tuple(enumerate({**content, "label": label} for label in (True, False)))
    raw = RawShard("rows", (*content, "label"), rows)
    return preview_rows(raw, Columns(**columns), "s", make_tokenizer(chat_template=MARKED), 64, 300)


@pytest.mark.parametrize("content", [{"prompt": "hello", "completion": " you"}, {"messages": CHAT}])
def test_an_answer_that_was_turned_down_is_refused_with_a_way_out(content: dict[str, Any]) -> None:
    wanted, turned_down = labelled(content)
    assert wanted.rejected is None
    assert turned_down.rejected
    assert turned_down.rejected.startswith("label is false: an answer that was turned down is no training text.")
    assert "columns.metadata" in turned_down.rejected
    assert [row.rejected for row in labelled(content, metadata=("label",))] == [None, None]


def test_a_label_beside_other_content_is_metadata() -> None:
    assert [row.rejected for row in labelled({"text": "hello you"})] == [None, None]
