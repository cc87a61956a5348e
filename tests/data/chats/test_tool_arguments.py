"""Tool arguments as the chat template takes them, and templates that fail on a row."""

import json
from typing import Any

import pyarrow as pa
import pytest

from lorif_assets.config.sources import Columns
from lorif_assets.data.chats.tool_arguments import PARSED, WRITTEN
from lorif_assets.data.examples import normalise
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.preview import PreviewedRow, preview_rows
from lorif_assets.data.tokens.tokenization import tokenize
from tests.data.conftest import make_tokenizer

HEAD = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for call in m.tool_calls or [] %}"
END = "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
NAME = '{{ call.function.name + ":" }}'
WRITES_JSON = HEAD + NAME + "{{ call.function.arguments | tojson }}" + END
READS_AN_OBJECT = (
    HEAD + NAME + "{% for key, value in call.function.arguments.items() %}{{ key }}={{ value }};{% endfor %}" + END
)
ADDS_TEXT = HEAD + NAME + "{{ '' + call.function.arguments }}" + END
TAKES_BOTH = (
    HEAD
    + NAME
    + "{% if call.function.arguments is string %}{{ call.function.arguments }}{% else %}"
    + "{{ call.function.arguments | tojson }}{% endif %}"
    + END
)
ARGUMENTS = {"to": "Bob", "body": "hi", "at": 7}
TEXT = json.dumps(ARGUMENTS, separators=(",", ":"))


def conversation(arguments: object) -> list[dict[str, Any]]:
    call = {"id": "c1", "type": "function", "function": {"name": "send", "arguments": arguments}}
    return [{"role": "user", "content": "write"}, {"role": "assistant", "content": "yes ", "tool_calls": [call]}]


def previewed(template: str, *conversations: list[dict[str, Any]]) -> list[PreviewedRow]:
    raw = RawShard("rows", ("messages",), tuple(enumerate({"messages": turns} for turns in conversations)))
    return preview_rows(raw, Columns(), "s-00000", make_tokenizer(chat_template=template), 512, 300)


def loss(row: PreviewedRow) -> str:
    assert row.rejected is None
    return "".join(piece.text for piece in row.pieces if piece.loss)


@pytest.mark.parametrize(
    ("template", "arguments", "expected", "notices"),
    [
        (WRITES_JSON, ARGUMENTS, json.dumps(ARGUMENTS), ()),
        (WRITES_JSON, TEXT, json.dumps(ARGUMENTS), (PARSED,)),
        (WRITES_JSON, "not JSON", '"not JSON"', ()),
        (READS_AN_OBJECT, ARGUMENTS, "to=Bob;body=hi;at=7;", ()),
        (READS_AN_OBJECT, TEXT, "to=Bob;body=hi;at=7;", (PARSED,)),
        (ADDS_TEXT, TEXT, TEXT, ()),
        (ADDS_TEXT, ARGUMENTS, json.dumps(ARGUMENTS), (WRITTEN,)),
        (TAKES_BOTH, ARGUMENTS, json.dumps(ARGUMENTS), ()),
        (TAKES_BOTH, TEXT, TEXT, ()),
    ],
)
def test_arguments_reach_the_template_in_the_form_that_it_takes(
    template: str, arguments: object, expected: str, notices: tuple[str, ...]
) -> None:
    (row,) = previewed(template, conversation(arguments))
    assert loss(row) == f"yes send:{expected}<|end|>"
    assert row.notices == notices


def test_calls_without_a_function_field_too() -> None:
    flat = conversation(TEXT)
    flat[1]["tool_calls"] = [{"name": "send", "arguments": TEXT}]
    (row,) = previewed(READS_AN_OBJECT.replace("call.function", "call"), flat)
    assert loss(row) == "yes send:to=Bob;body=hi;at=7;<|end|>"


@pytest.mark.parametrize(
    ("expression", "failure"),
    [
        ("m.content + 1", 'TypeError: can only concatenate str (not "int") to str'),
        ("1 // 0", "ZeroDivisionError: integer division or modulo by zero"),
        ("m.nothing.more", "UndefinedError: 'dict object' has no attribute 'nothing'"),
        ("m.content[0] / m.content", "TypeError: unsupported operand type(s) for /: 'str' and 'str'"),
    ],
)
def test_whatever_a_template_raises_sets_aside_the_row_alone_and_names_line_and_template(
    expression: str, failure: str
) -> None:
    template = (
        WRITES_JSON
        + "\n{% for m in messages %}{% if m.role == 'tool' %}{{ "
        + expression
        + " }}{% endif %}{% endfor %}"
    )
    good = conversation(ARGUMENTS)
    failing, accepted = previewed(template, [*good, {"role": "tool", "content": "42"}], good)
    assert failing.example_id == "s-00000/000000"
    assert failing.rejected
    assert failing.rejected.startswith(
        "the chat template of tokenizer 'TokenizersBackend' fails on the messages at its line 2: "
    )
    assert failure in failing.rejected
    assert loss(accepted).startswith("yes send:")


def test_the_row_and_its_beginning_are_in_the_table_of_rows_set_aside() -> None:
    rows = tuple(enumerate({"messages": conversation(arguments)} for arguments in (ARGUMENTS, "not JSON")))
    examples = normalise(RawShard("rows", ("messages",), rows), Columns(), "s-00000").examples
    shard = tokenize(examples, make_tokenizer(chat_template=READS_AN_OBJECT), 512, 300)
    assert isinstance(shard.rejected, pa.Table)
    (rejected,) = shard.rejected.to_pylist()
    assert (rejected["example_id"], rejected["row"]) == ("s-00000/000001", 1)
    assert "has no attribute 'items'" in rejected["reason"]
    assert rejected["excerpt"].startswith('{"messages": ')


def test_a_notice_is_said_once_with_the_count(caplog: pytest.LogCaptureFixture) -> None:
    rows = tuple(enumerate({"messages": conversation(arguments)} for arguments in (TEXT, ARGUMENTS, TEXT)))
    examples = normalise(RawShard("rows", ("messages",), rows), Columns(), "s-00000").examples
    shard = tokenize(examples, make_tokenizer(chat_template=WRITES_JSON), 512, 300)
    assert shard.notices == {PARSED: 2}
    assert shard.logged() is shard
    assert [record.getMessage() for record in caplog.records] == [f"2 of 3 rows: {PARSED}"]
