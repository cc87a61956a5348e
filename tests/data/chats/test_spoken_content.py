"""What templates leave out of a conversation: it carries no loss, and is said."""

from typing import Any

import pytest

from lorif_assets.data.chats.renderings import DROPPED
from lorif_assets.data.chats.spoken_content import kinds_left_out, spoken
from tests.data.chats.test_turns import CHAT, PROMPT, call, previewed, turn

# Content is a list of parts of another layout.
OTHER_PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}{% if part.type == 'text' %}{{ part.said }}"
    "{% endif %}{% endfor %}<|end|>{% endfor %}" + PROMPT
)
NO_CALLS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + PROMPT
NO_THINKING = NO_CALLS.replace("m.content", "m.content.split('</think>')[-1]")
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content.split('</think>')[-1] }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}" + PROMPT
)
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + PROMPT


def loss(template: str, messages: list[dict[str, Any]]) -> tuple[list[str], tuple[str, ...]]:
    row = previewed(template, messages)
    assert row.rejected is None
    return [piece.text for piece in row.pieces if piece.loss], row.notices


def left_out(kind: str, role: str) -> str:
    return f"the chat template leaves out {kind} of a message by '{role}', or changes it"


def test_a_row_of_which_no_answer_is_rendered_is_set_aside() -> None:
    row = previewed(OTHER_PARTS, CHAT)
    assert row.rejected == "the chat template leaves out everything that the assistant says"


@pytest.mark.parametrize("template", [NO_CALLS, NO_THINKING, MARKED])
def test_the_frame_of_tool_calls_that_are_left_out_carries_no_loss(template: str) -> None:
    calls = turn("assistant", "", tool_calls=[call("send", to="Bob")])
    messages = [*CHAT[:1], calls, turn("tool", "sent"), turn("assistant", "today")]
    assert loss(template, messages) == (["today<|end|>"], (DROPPED,))


@pytest.mark.parametrize("template", [NO_THINKING, MARKED])
def test_of_reasoning_that_is_left_out_the_answer_remains(template: str) -> None:
    messages = [*CHAT[:3], turn("assistant", "<think>hm</think>quick")]
    assert loss(template, messages) == (["hello you<|end|>", "quick<|end|>"], (left_out("reasoning", "assistant"),))


@pytest.mark.parametrize("template", [NO_THINKING, MARKED])
def test_a_turn_of_nothing_but_reasoning_that_is_left_out_carries_no_loss(template: str) -> None:
    messages = [CHAT[0], turn("assistant", "<think>hm</think>"), *CHAT[2:]]
    assert loss(template, messages) == (["quick<|end|>"], (DROPPED,))


def test_tool_calls_that_are_left_out_beside_an_answer_are_noticed() -> None:
    messages = [*CHAT[:3], turn("assistant", "quick", tool_calls=[call("send")], reasoning_content="hm")]
    assert loss(NO_CALLS, messages) == (
        ["hello you<|end|>", "quick<|end|>"],
        (left_out("reasoning", "assistant"), left_out("tool calls", "assistant")),
    )


def test_what_others_say_and_the_template_leaves_out_is_noticed() -> None:
    assert loss(NO_SYSTEM, [turn("system", "be brief"), *CHAT]) == (
        ["hello you<|end|>", "quick<|end|>"],
        (left_out("content", "system"),),
    )


@pytest.mark.parametrize("change", ["m.content | upper", "m.content | replace('quick', 'fast')"])
def test_an_answer_that_the_template_changes_still_counts(change: str) -> None:
    answers, notices = loss(NO_CALLS.replace("m.content", change), CHAT)
    assert len(answers) == 2
    assert left_out("content", "assistant") in notices
    assert DROPPED not in notices


@pytest.mark.parametrize("change", ["m.content | trim", "m.content | tojson"])
def test_white_space_and_json_are_no_change(change: str) -> None:
    messages = [*CHAT[:3], turn("assistant", '  say "hi"\nand go ')]
    assert loss(NO_CALLS.replace("m.content", change), messages)[1] == ()


def test_an_answer_without_content_leaves_out_nothing() -> None:
    assert loss(NO_CALLS, [*CHAT[:3], turn("assistant", "")]) == (["hello you<|end|>", "<|end|>"], ())


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": "a"}, {"content": ["a"]}),
        ({"content": " "}, {}),
        ({"content": None}, {}),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}]}, {"content": ["a"]}),
        ({"content": "<think>\nb</think>\n a"}, {"content": ["\n a"], "reasoning": ["\nb"]}),
        ({"content": "a", "reasoning": "b"}, {"content": ["a"], "reasoning": ["b"]}),
        ({"content": "", "tool_calls": [call("f"), {"name": "g"}]}, {"tool calls": ["f", "g"]}),
        ({"content": "", "function_call": {"name": "g"}}, {"tool calls": ["g"]}),
    ],
)
def test_what_a_message_says(message: dict[str, Any], said: dict[str, list[str]]) -> None:
    assert spoken(message) == said
    assert kinds_left_out(said, "") == list(said)
    assert kinds_left_out(said, "a b f g") == []
