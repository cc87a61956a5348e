"""Tool definitions of a row reach the chat template, or it is said that they do not."""

import json

import pytest

from lorif_assets.data.chats.renderings import NO_TOOLS
from tests.data.chats.test_turns import CHAT, PROMPT, RETURNS, previewed

TAKES_TOOLS = (
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + PROMPT
)
MARKED = TAKES_TOOLS.replace(
    "{{ m.content }}<|end|>",
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|end|>{% endif %}",
)
TOOLS = [{"type": "function", "function": {"name": "send", "parameters": {"to": "text", "at": "time"}}}]


@pytest.mark.parametrize("template", [TAKES_TOOLS, MARKED, "{{ messages | length }}" + TAKES_TOOLS])
@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS)])
def test_they_are_rendered_without_loss_whichever_way_turns_are_found(template: str, tools: object) -> None:
    row = previewed(template, CHAT, tools=tools)
    assert "".join(piece.text for piece in row.pieces if piece.loss) == "hello you<|end|>quick<|end|>"
    assert f"<|system|>{json.dumps(TOOLS)}<|end|>" in row.pieces[0].text
    assert row.notices == ()


def test_a_template_that_takes_none_is_said() -> None:
    assert previewed(RETURNS, CHAT, tools=TOOLS).notices == (NO_TOOLS,)
    assert previewed(RETURNS, CHAT, tools=None).notices == ()


def test_a_template_that_needs_them_is_one_that_takes_them() -> None:
    needs = "{% if not tools %}{{ raise_exception('no tools') }}{% endif %}" + TAKES_TOOLS
    assert previewed(needs, CHAT, tools=TOOLS).notices == ()
    assert previewed(needs, CHAT).rejected == "the chat template refuses the messages: no tools"
