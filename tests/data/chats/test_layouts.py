"""Layouts that people keep training data in: each is read as the same words in the usual form, or named."""

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pydantic import ValidationError

from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.content.columns import require_columns, unread_input_notice
from lorif_assets.data.examples import NormalisedShard, normalise, sort_out
from lorif_assets.data.formats.reader import RawShard, version_of
from lorif_assets.errors import SourceError

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}


def shard(*rows: Mapping[str, Any], columns: Columns | None = None) -> NormalisedShard:
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return sort_out(RawShard("a.jsonl", names, tuple(enumerate(rows))), columns or Columns(), "s-00000")


def only(found: NormalisedShard) -> dict[str, Any]:
    assert found.rejected.num_rows == 0
    (example,) = found.examples.to_pylist()
    return dict(example)


USUAL = [USER, ANSWER]


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": USUAL},
        {"messages": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]},
        {"messages": json.dumps(USUAL)},
        {"messages": [USER, {"role": "model", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q", "image_url": None}]}, ANSWER]},
        {"prompt": [USER], "completion": [ANSWER]},
        {"prompt": [USER], "completion": ANSWER},
        {"prompt": [{"from": "human", "value": "q"}], "completion": {"from": "gpt", "value": "a"}},
        {"prompt": [USER], "completion": "a"},
    ],
)
def test_a_chat_in_another_layout_is_the_same_example(row: dict[str, Any]) -> None:
    found, usual = only(shard(row)), only(shard({"messages": USUAL}))
    assert json.loads(found["messages"]) == USUAL
    assert (found["format"], found["content_hash"]) == ("messages", usual["content_hash"])
    assert found["metadata"] == "{}"


@pytest.mark.parametrize("content", [{}, {"content": None}])
def test_null_or_absent_content_beside_tool_calls_is_an_empty_text(content: dict[str, Any]) -> None:
    calling = {"role": "assistant", **content, "tool_calls": [CALL]}
    read = json.loads(only(shard({"messages": [USER, calling]}))["messages"])
    assert read[1] == {"content": "", "role": "assistant", "tool_calls": [CALL]}


def test_calls_as_json_text_are_calls() -> None:
    calling = {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])}
    read = json.loads(only(shard({"messages": [USER, calling, {**ANSWER, "tool_calls": ""}]}))["messages"])
    assert read[1:] == [{"content": "", "role": "assistant", "tool_calls": [CALL]}, ANSWER]


@pytest.mark.parametrize("role", ["function_call", "tool_call"])
@pytest.mark.parametrize(
    "said", ['{"name": "f", "arguments": {}}', '[{"name": "f", "arguments": {}}]', {"name": "f", "arguments": {}}]
)
def test_calls_as_a_message_of_their_own_are_the_assistants(role: str, said: Any) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": role, "value": said}, {"from": "observation", "value": "4"}]
    read = json.loads(only(shard({"conversations": turns}))["messages"])
    assert read == [
        USER,
        {"content": "", "role": "assistant", "tool_calls": [CALL]},
        {"content": "4", "role": "tool"},
    ]


NULLED = {"name": "f", "arguments": {"since": None, "where": {"a": None}}}
NULLED_CALL = {"type": "function", "function": NULLED}


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": json.dumps(NULLED)}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": json.dumps([NULLED])}]},
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": json.dumps([NULLED_CALL])}]},
        {"messages": json.dumps([USER, {"role": "assistant", "content": "", "tool_calls": [NULLED_CALL]}])},
        {"messages": json.dumps([USER, {"role": "tool_call", "content": NULLED}])},
        {"conversations": json.dumps([{"from": "human", "value": "q"}, {"from": "function_call", "value": [NULLED]}])},
    ],
)
def test_arguments_of_calls_that_are_json_text_keep_their_nulls(row: dict[str, Any]) -> None:
    (_, read) = json.loads(only(shard(row))["messages"])
    (call,) = read["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == NULLED["arguments"]


@pytest.mark.parametrize("said", ["f()", "[1]", '{"arguments": {}}', "[]"])
def test_calls_that_are_none_set_the_row_aside(said: str) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "function_call", "value": said}, {"from": "gpt", "value": "a"}]
    (bad,) = shard({"conversations": turns}).rejected["reason"].to_pylist()
    assert bad == "message 1 is by 'function_call', but its content is no JSON of calls, {name, arguments}"


def test_of_a_conversational_prompt_nothing_carries_loss() -> None:
    read = json.loads(only(shard({"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}))["messages"])
    assert [message.get("train") for message in read] == [None, False, None, None]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "user", "content": None}, ANSWER], "content of message 0 is null, not text"),
        (
            [{"role": "user", "content": [{"type": "image"}]}, ANSWER],
            "content of message 0 is list, not text, with a part of the type 'image'; rows are read as text",
        ),
        (
            [USER, {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]}],
            "content of message 1 is list, not text, with a part of the type 'tool_use'; calls belong into tool_calls",
        ),
        (
            [
                USER,
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}],
                },
            ],
            "content of message 1 is list, not text, with a part of the type 'thinking'; reasoning belongs into a field",
        ),
        ("no JSON", "messages is text, but no list of messages as JSON: Expecting value"),
        ('{"role": "user"}', "messages is dict, not a list"),
        ([{"role": {}, "content": "q"}], "message 0 has no role"),
        ([{"from": {"a": 1}, "value": "q"}], "role of message 0 is dict, not text"),
    ],
)
def test_what_is_in_no_layout_is_set_aside(messages: Any, reason: str) -> None:
    assert re.match(reason, shard({"messages": messages}).rejected["reason"][0].as_py())


def test_preference_data_is_refused_with_the_answer_to_name() -> None:
    with pytest.raises(SourceError, match=r"no column named text.*name it \(chosen\) as completion beside its prompt"):
        shard({"prompt": "q", "chosen": "a", "rejected": "b"})
    chosen = only(shard({"prompt": [USER], "chosen": [ANSWER]}, columns=Columns(prompt="prompt", completion="chosen")))
    assert json.loads(chosen["messages"]) == USUAL
    whole = only(shard({"chosen": [USER, ANSWER], "rejected": []}, columns=Columns(messages="chosen")))
    assert json.loads(whole["messages"]) == USUAL


def test_the_role_model_stays_beside_an_assistant() -> None:
    messages = [USER, {"role": "model", "content": "b"}, ANSWER]
    assert json.loads(only(shard({"messages": messages}))["messages"])[1]["role"] == "model"


class TestSystemColumn:
    TURNS: ClassVar[list[dict[str, str]]] = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    SYSTEM: ClassVar[dict[str, str]] = {"role": "system", "content": "Be brief."}

    def messages(self, row: Mapping[str, Any], **columns: Any) -> list[dict[str, str]]:
        read: list[dict[str, str]] = json.loads(only(shard(row, columns=Columns(**columns)))["messages"])
        return read

    def test_beside_conversations_it_is_the_first_turn(self) -> None:
        read = self.messages({"conversations": self.TURNS, "system": "Be brief."})
        assert read == [{**self.SYSTEM}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]

    @pytest.mark.parametrize("system", [None, ""])
    def test_a_row_without_one_has_no_such_turn(self, system: str | None) -> None:
        assert [turn["role"] for turn in self.messages({"conversations": self.TURNS, "system": system})] == [
            "user",
            "assistant",
        ]

    def test_one_that_the_conversation_repeats_is_there_once_and_another_one_is_refused(self) -> None:
        turns = [{"from": "system", "value": "Be brief."}, *self.TURNS]
        assert self.messages({"conversations": turns, "system": "Be brief."})[0] == self.SYSTEM
        good = {"conversations": self.TURNS, "system": ""}
        read = shard(good, {"conversations": turns, "system": "Be long."})
        assert "two system messages" in read.rejected["reason"][0].as_py()

    def test_beside_other_messages_it_is_metadata_unless_the_settings_name_it(self) -> None:
        row = {"messages": [USER, ANSWER], "system": "Be brief."}
        assert json.loads(only(shard(row))["metadata"]) == {"system": "Be brief."}
        assert self.messages(row, messages="messages", system="system")[0] == self.SYSTEM
        named = only(shard({"conversations": self.TURNS, "system": "x"}, columns=Columns(metadata=("system",))))
        assert [turn["role"] for turn in json.loads(named["messages"])] == ["user", "assistant"]


class TestPromptFormat:
    ALPACA: ClassVar[Mapping[str, Any]] = {"instruction": "Add.", "input": "1 {2}", "output": "3", "source": "x"}
    FORMAT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n{{}} ### Response:\n"

    def test_a_prompt_is_made_of_columns(self) -> None:
        columns = Columns(prompt_format=self.FORMAT, completion="output")
        read = only(shard(self.ALPACA, columns=columns))
        assert read["format"] == "prompt_completion"
        assert read["prompt"] == "### Instruction:\nAdd.\n\n### Input:\n1 {2}\n\n{} ### Response:\n"
        assert read["completion"] == "3"
        assert json.loads(read["metadata"]) == {"source": "x"}

    def test_null_is_an_empty_text_and_a_list_is_set_aside(self) -> None:
        columns = Columns(prompt_format="{instruction}|{input}", completion="output")
        read = shard({**self.ALPACA, "input": None}, {**self.ALPACA, "input": ["x"]}, columns=columns)
        assert read.examples["prompt"].to_pylist() == ["Add.|"]
        assert read.rejected["reason"].to_pylist() == ["column 'input' of prompt_format is list, not text"]

    SHORT = "### Instruction:\n{instruction}\n\n### Response:\n"

    def test_rows_without_an_optional_column_have_a_prompt_of_their_own(self) -> None:
        columns = Columns(prompt_format=self.FORMAT, short_prompt_format=self.SHORT, completion="output")
        without = {name: value for name, value in self.ALPACA.items() if name != "input"}
        rows = [self.ALPACA, {**self.ALPACA, "input": None}, {**self.ALPACA, "input": ""}, without]
        prompts = shard(*rows, columns=columns).examples["prompt"].to_pylist()
        assert prompts[0].startswith("### Instruction:\nAdd.\n\n### Input:\n1 {2}")
        assert prompts[1:] == ["### Instruction:\nAdd.\n\n### Response:\n"] * 3
        # Nor need any row of a shard have it.
        require_columns(columns, tuple(without), "a.jsonl")
        assert shard(without, columns=columns).examples.num_rows == 1

    def test_alpaca_is_named_with_the_setting_that_reads_it(self) -> None:
        with pytest.raises(
            SourceError, match=r'Alpaca layout.*prompt_format = ".*\{instruction\}.*\{input\}.*"output"'
        ):
            normalise(RawShard("a.jsonl", tuple(self.ALPACA), ((0, self.ALPACA),)), Columns(), "s-00000")

    def test_an_input_that_is_read_as_metadata_is_said(self) -> None:
        columns = Columns(prompt="instruction", completion="output")
        assert "'input' beside it is metadata" in str(unread_input_notice(columns, self.ALPACA))
        assert unread_input_notice(columns, ["instruction", "output"]) is None
        named = Columns(prompt="instruction", completion="output", metadata=("input",))
        assert unread_input_notice(named, self.ALPACA) is None

    def test_a_column_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(SourceError, match=r"no column 'question' \(columns.prompt_format\)"):
            require_columns(Columns(prompt_format="{question}", completion="output"), tuple(self.ALPACA), "a.jsonl")

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"prompt_format": "{a}"}, "go together"),
            ({"prompt_format": "{a}", "prompt": "b", "completion": "c"}, "not both"),
            ({"prompt_format": "{a", "completion": "c"}, "braces that do not match"),
            ({"prompt_format": "a", "completion": "c"}, "names no column"),
            ({"prompt_format": "{a.b}", "completion": "c"}, "a column's name alone"),
            ({"prompt_format": "{}", "completion": "c"}, "a column's name alone"),
            ({"prompt_format": "{a}", "completion": "c", "text": "d"}, "one kind of content"),
            ({"prompt_format": "{a}", "short_prompt_format": "{a}", "completion": "c"}, "leaves out one column"),
            ({"prompt_format": "{a}{b}", "short_prompt_format": "{c}", "completion": "c"}, "leaves out one column"),
            ({"short_prompt_format": "{a}", "prompt": "b", "completion": "c"}, "leaves out one column"),
            (
                {"prompt_format": "{a}{b}", "short_prompt_format": "a", "completion": "c"},
                "`short_prompt_format` names no",
            ),
        ],
    )
    def test_a_format_that_cannot_be_is_refused(self, settings: dict[str, str], reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            Columns(**settings)

    def test_a_source_without_one_keeps_its_version(self) -> None:
        assert "prompt_format" not in Columns().model_dump()
        other = Source(name="s", path="p", columns=Columns(prompt_format="{a}", completion="b"))
        assert version_of("1", other) != version_of("1", Source(name="s", path="p"))


def test_tools_and_arguments_of_the_template_belong_to_a_chat_in_prompt_and_completion_too() -> None:
    more = {"tools": [CALL["function"]], "chat_template_kwargs": {"enable_thinking": False}}
    chat = only(shard({"prompt": [USER], "completion": [ANSWER], **more}))
    assert json.loads(chat["messages"]) == {"messages": USUAL, **more}
    plain = only(shard({"prompt": "q", "completion": "a", **more}))
    assert (plain["messages"], json.loads(plain["metadata"])) == (None, more)


def test_arrow_keeps_the_layouts() -> None:
    rows = [
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        {"messages": [USER, ANSWER]},
    ]
    table = pa.Table.from_pylist(
        [
            {"messages": [{**{"tool_calls": None}, **m} for m in row["messages"]]}
            for row in json.loads(json.dumps(rows).replace('"arguments": {}', '"arguments": {"k": 1}'))
        ]
    )
    read = shard(*table.to_pylist())
    assert read.rejected.num_rows == 0
    assert [json.loads(text)[1]["content"] for text in read.examples["messages"].to_pylist()] == ["", "a"]
