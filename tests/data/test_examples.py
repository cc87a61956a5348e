import json
import math
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from deltalake import write_deltalake
from hypothesis import assume, given
from hypothesis import strategies as st

from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.examples import NormalisedShard, normalise
from lorif_assets.data.formats.reader import MalformedRow, RawShard
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import SourceError
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES

ASSISTANT = {"role": "assistant", "content": "hi"}
USER = {"role": "user", "content": "hello"}


def raw(*rows: dict[str, Any], malformed: tuple[MalformedRow, ...] = ()) -> RawShard:
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return RawShard("a.jsonl, rows 0 to 9", columns, tuple(enumerate(rows)), malformed)


def normalised(*rows: dict[str, Any], **columns: Any) -> NormalisedShard:
    return normalise(raw(*rows), Columns(**columns), "s-00000")


def examples(*rows: dict[str, Any], **columns: Any) -> list[dict[str, Any]]:
    return normalised(*rows, **columns).examples.to_pylist()


def reason_of(bad: dict[str, Any], good: dict[str, Any], **columns: Any) -> str:
    """Why `bad` is set aside, beside `good`, which is not."""
    shard = normalised(good, bad, **columns)
    assert shard.examples["row"].to_pylist() == [0]
    (rejected,) = shard.rejected.to_pylist()
    assert rejected["row"] == 1
    return str(rejected["reason"])


class TestKindsOfContent:
    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ({"text": "a"}, {"format": "text", "text": "a"}),
            (
                {"prompt": "p", "completion": "c"},
                {"format": "prompt_completion", "prompt": "p", "completion": "c"},
            ),
            (
                {"messages": [USER, ASSISTANT]},
                {"format": "messages", "messages": json.dumps([USER, ASSISTANT], sort_keys=True)},
            ),
            ({"input_ids": [1, 2]}, {"format": "input_ids", "input_ids": [1, 2]}),
            (
                {"input_ids": [1, 2], "labels": [-100, 2]},
                {"format": "input_ids", "input_ids": [1, 2], "labels": [-100, 2]},
            ),
        ],
    )
    def test_columns_with_well_known_names_are_used_when_none_is_named(
        self, row: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        (example,) = examples({**row, "topic": "x"})
        content = ("format", "text", "prompt", "completion", "messages", "input_ids", "labels")
        assert {name: example[name] for name in content if example[name] is not None} == expected
        assert example["metadata"] == '{"topic": "x"}'

    def test_named_columns_win_over_well_known_names(self) -> None:
        (example,) = examples({"text": "no", "question": "p", "answer": "c"}, prompt="question", completion="answer")
        assert (example["prompt"], example["completion"], example["text"]) == ("p", "c", None)
        assert example["metadata"] == '{"text": "no"}'

    def test_labels_beside_a_named_input_ids_column_are_used(self) -> None:
        row = {"ids": [1, 2], "labels": [-100, 2], "targets": [1, -100]}
        assert examples(row, input_ids="ids")[0]["labels"] == [-100, 2]
        assert examples(row, input_ids="ids", labels="targets")[0]["labels"] == [1, -100]

    def test_what_tokenizers_write_beside_input_ids_is_no_metadata(self) -> None:
        (example,) = examples({"input_ids": [1], "attention_mask": [1], "token_type_ids": [0], "topic": "x"})
        assert example["metadata"] == '{"topic": "x"}'

    def test_several_kinds_of_content_are_refused_until_one_is_named(self) -> None:
        row = {"text": "a", "input_ids": [1]}
        with pytest.raises(SourceError, match=r"a\.jsonl.*several kinds of content \(text, input_ids\)"):
            normalised(row)
        assert examples(row, text="text")[0]["format"] == "text"

    def test_no_content_column_is_refused_with_the_columns_there(self) -> None:
        with pytest.raises(SourceError, match=r"a\.jsonl.*columns there are: body, prompt\. Say in"):
            normalised({"body": "a", "prompt": "b"})

    def test_the_table_has_the_columns_of_the_lake(self) -> None:
        shard = normalised({"text": "a"}, {"text": "b"})
        assert shard.examples.schema == TRAINING_EXAMPLES.columns
        assert set(shard.examples["shard"].to_pylist()) == {"s-00000"}
        assert set(shard.examples["shard_hash"].to_pylist()) == {shard.shard_hash}

    @pytest.mark.parametrize("content", ["你好 \N{GRINNING FACE}", 'quote " and \\', "a\u2028b\x00c"])
    def test_text_is_kept_as_it_is(self, content: str) -> None:
        assert examples({"text": content})[0]["text"] == content


ARGUMENTS = {"to": "Bob", "body": "hi", "at": {"z": 1, "a": [{"y": 2, "b": 3}]}}


class TestToolCalls:
    def conversation(self, arguments: object) -> list[dict[str, Any]]:
        call = {"type": "function", "function": {"name": "send", "arguments": arguments}, "id": "c1"}
        return [USER, {**ASSISTANT, "tool_calls": [call]}]

    def stored(self, path: str, folder: Path) -> list[dict[str, Any]]:
        source = Source(name="s", path=path, columns=Columns(id="id"), buckets=1)
        (piece,) = list_shards(source, folder)
        shard = normalise(read_shard(source, piece, folder), source.columns, piece.shard)
        return [json.loads(messages) for messages in shard.examples["messages"].to_pylist()]

    def test_keys_keep_the_order_of_the_data_in_every_format(self, tmp_path: Path) -> None:
        row = {"id": "a", "messages": self.conversation(ARGUMENTS)}
        expected = json.dumps(row["messages"][1]["tool_calls"])
        (tmp_path / "rows.jsonl").write_text(json.dumps(row))
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
        Dataset.from_list([row]).save_to_disk(tmp_path / "dataset")
        write_deltalake(tmp_path / "table", pa.Table.from_pylist([row]))
        for path in ("rows.jsonl", "rows.parquet", "dataset", "table"):
            ((_, answer),) = self.stored(path, tmp_path)
            assert json.dumps(answer["tool_calls"]) == expected, path

    def test_they_are_what_an_assistant_may_say_alone(self) -> None:
        messages = self.conversation(ARGUMENTS)
        messages[1]["content"] = ""
        assert json.loads(examples({"messages": messages})[0]["messages"]) == messages

    def test_nulls_that_arrow_adds_for_other_rows_arguments_are_dropped_at_every_level(self, tmp_path: Path) -> None:
        rows = [
            {"id": "a", "messages": self.conversation({"city": "Oslo", "at": {"day": 1}, "seen": [None, 2]})},
            {"id": "b", "messages": self.conversation({"path": "/tmp", "at": {"hour": 2}})},
            {"id": "c", "messages": [USER, ASSISTANT]},
        ]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
        assert "null" in json.dumps(pq.read_table(tmp_path / "rows.parquet").to_pylist()[1])
        for path in ("rows.jsonl", "rows.parquet"):
            assert self.stored(path, tmp_path) == [row["messages"] for row in rows], path

    def test_their_order_enters_the_content_hash(self) -> None:
        reversed_keys = dict(reversed(ARGUMENTS.items()))
        assert_hashes_differ({"messages": self.conversation(ARGUMENTS)}, {"messages": self.conversation(reversed_keys)})

    def test_the_order_of_a_messages_own_fields_does_not(self) -> None:
        reversed_fields = [dict(reversed(turn.items())) for turn in self.conversation(ARGUMENTS)]
        one, other = (
            normalised({"messages": self.conversation(ARGUMENTS)}),
            normalised({"messages": reversed_fields}),
        )
        assert one.shard_hash == other.shard_hash

    def test_conversations_whose_keys_were_in_order_keep_their_hashes(self) -> None:
        arguments = {"at": "noon", "body": {"a": 1, "z": 2}}
        call = {"function": {"arguments": arguments, "name": "send"}, "id": "c1", "type": "function"}
        rows = [{"messages": [USER, ASSISTANT]}, {"messages": [USER, {**ASSISTANT, "tool_calls": [call]}]}]
        assert [row["content_hash"] for row in examples(*rows)] == [
            "dc7ada01bdef92cce55765f39e0cabfb",
            "035db04e1c55db7fbfd8362499f43d55",
        ]


class TestToolDefinitions:
    TOOL = json.loads('{"type": "function", "function": {"name": "send", "parameters": {"z": {}, "a": {}}}}')

    @pytest.mark.parametrize("form", [lambda tools: tools, json.dumps, lambda tools: list(map(json.dumps, tools))])
    def test_are_stored_with_the_messages_as_they_came(self, form: Callable[[Any], Any]) -> None:
        (example,) = examples({"messages": [USER, ASSISTANT], "tools": form([self.TOOL]), "topic": "x"})
        stored = Conversation.parse(example["messages"])
        assert (stored.messages, json.dumps(stored.tools)) == ([USER, ASSISTANT], json.dumps([self.TOOL]))
        assert example["metadata"] == '{"topic": "x"}'

    def test_of_a_named_column(self) -> None:
        row = {"chat": [ASSISTANT], "functions": [self.TOOL], "tools": "a note"}
        (example,) = examples(row, messages="chat", tools="functions")
        assert Conversation.parse(example["messages"]).tools == [self.TOOL]
        assert example["metadata"] == '{"tools": "a note"}'

    @pytest.mark.parametrize("nothing", [None, [], "", " ", "[]", "null"])
    def test_a_row_without_any_is_stored_as_its_messages_alone(self, nothing: object) -> None:
        (example,) = examples({"messages": [ASSISTANT], "tools": nothing})
        assert json.loads(example["messages"]) == [ASSISTANT]

    def test_nulls_that_arrow_adds_are_dropped_and_those_of_json_text_are_not(self) -> None:
        (added,) = examples({"messages": [ASSISTANT], "tools": [{"name": "f", "enum": None}]})
        assert Conversation.parse(added["messages"]).tools == [{"name": "f"}]
        (written,) = examples({"messages": [ASSISTANT], "tools": '[{"name": "f", "default": null}]'})
        assert Conversation.parse(written["messages"]).tools == [{"name": "f", "default": None}]

    @pytest.mark.parametrize(
        ("tools", "reason"),
        [
            ("{", "tools is text, but no JSON: Expecting property name"),
            ('{"name": "f"}', "tools is str, not a list of tool definitions or its JSON text"),
            (7, "tools is int, not a list of tool definitions or its JSON text"),
            ([7], "tool 0 is int, not a tool definition (an object)"),
            ([TOOL, "x"], "tool 1 is text, but no JSON: Expecting value"),
            ([{"name": "\ud800"}], "tools is not valid Unicode"),
        ],
    )
    def test_that_are_none_set_the_row_aside(self, tools: object, reason: str) -> None:
        good = {"messages": [ASSISTANT], "tools": None}
        assert reason_of({"messages": [ASSISTANT], "tools": tools}, good).startswith(reason)

    def test_enter_the_content_hash(self) -> None:
        assert_hashes_differ(
            {"messages": [ASSISTANT], "tools": [self.TOOL]}, {"messages": [ASSISTANT], "tools": [{"name": "f"}]}
        )

    def test_of_other_content_are_metadata(self) -> None:
        assert examples({"text": "a", "tools": "hammer"})[0]["metadata"] == '{"tools": "hammer"}'
        with pytest.raises(ValueError, match="`tools` needs `messages`"):
            Columns(text="text", tools="tools")

    def test_a_source_that_names_no_column_for_them_has_the_version_of_before(self) -> None:
        assert "tools" not in Columns(messages="messages").model_dump(mode="json")
        assert Columns(messages="messages", tools="t").model_dump(mode="json")["tools"] == "t"


class TestRowsSetAside:
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "text is null, not text"),
            ("", "text is empty"),
            (" \n\t\u00a0", "text is empty"),
            (7, "text is int, not text"),
            ("a\ud800", "text is not valid Unicode: lone surrogate at character 1"),
        ],
    )
    def test_text_that_is_missing_empty_or_no_text(self, value: object, reason: str) -> None:
        assert reason_of({"text": value}, good={"text": "a"}) == reason

    @pytest.mark.parametrize(
        ("prompt", "completion", "reason"),
        [
            ("p", None, "completion is null, not text"),
            ("p", "  ", "completion is empty"),
            (None, "c", "prompt is null, not text"),
            (["p"], "c", "message 0 is str, not {role, content}"),
            ([USER], None, "completion is null or empty"),
            ({"p": 1}, "c", "prompt is dict, not text"),
        ],
    )
    def test_a_completion_that_is_empty_or_a_prompt_that_is_no_text(
        self, prompt: object, completion: object, reason: str
    ) -> None:
        good = {"prompt": "", "completion": "an empty prompt is fine"}
        assert reason_of({"prompt": prompt, "completion": completion}, good) == reason

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            (None, "messages is null, not a list of {role, content}"),
            ("[]", "messages is an empty list"),
            ([], "messages is an empty list"),
            (["hello"], "message 0 is str, not {role, content}"),
            ([USER, {"content": "hi"}], "message 1 has no role"),
            ([{"role": 3, "content": "hi"}], "role of message 0 is int, not text"),
            ([USER, {"role": "assistant"}], "content of message 1 is null, not text"),
            ([{"role": "assistant", "content": [{"type": "text"}]}], "content of message 0 is list, not text"),
            (
                [USER, {"role": "Bot", "content": "hi"}],
                "no assistant message with content: the loss is on the assistant's messages, and those of the row are by user, "
                "Bot",
            ),
            (
                [USER, {"role": "assistant", "content": " "}],
                "no assistant message with content: the loss is on the assistant's messages, and those of the row are by user, "
                "assistant",
            ),
            (
                [USER, {**ASSISTANT, "tool_calls": "look(it)"}],
                "tool_calls of message 1 is text, but no JSON of calls",
            ),
            (
                [{**ASSISTANT, "name": "\ud800"}],
                "message 0 is not valid Unicode: lone surrogate at character 48",
            ),
        ],
    )
    def test_malformed_messages(self, messages: object, reason: str) -> None:
        assert reason_of({"messages": messages}, good={"messages": [ASSISTANT]}) == reason

    @pytest.mark.parametrize(
        ("ids", "labels", "reason"),
        [
            (None, [1], "input_ids is null, not a list of integers"),
            ("12", [1], "input_ids is str, not a list of integers"),
            ([], [], "input_ids is empty"),
            ([1, -1], [1, 1], "input_ids holds -1: token ids are not negative"),
            ([1.0], [1], "input_ids holds float, not only integers"),
            ([1, None], [1, 1], "input_ids holds null, not only integers"),
            ([True], [1], "input_ids holds bool, not only integers"),
            ([2**31], [1], "input_ids holds integers beyond 32 bits"),
            ([1, 2], [1], "labels has 1 entries and input_ids 2"),
            ([1, 2], None, "labels is null, not a list of integers"),
            ([1, 2], [-1, 2], "labels are token ids or -100 (no loss), not other negative numbers"),
            ([1, 2], [-100, -100], "no label carries loss: all are -100"),
        ],
    )
    def test_malformed_token_ids_and_labels(self, ids: object, labels: object, reason: str) -> None:
        good = {"input_ids": [1, 2], "labels": [-100, 2]}
        assert reason_of({"input_ids": ids, "labels": labels}, good) == reason

    def test_padded_token_ids(self) -> None:
        good = {"input_ids": [1, 2], "attention_mask": [1, 1]}
        assert reason_of({"input_ids": [0, 2], "attention_mask": [0, 1]}, good) == (
            "attention_mask hides tokens: store the row without padding"
        )

    @pytest.mark.parametrize(
        ("mask", "ids", "labels"),
        [
            ([1, 1, 1, 1], [5, 6, 7, 0], [-100, 6, 7, -100]),
            ([1, 1, 1, 0], [5, 6, 7], [-100, 6, 7]),
            ([1, 1, 0, 0], [5, 6], [-100, 6]),
            ([True, True, True, False], [5, 6, 7], [-100, 6, 7]),
            (None, [5, 6, 7, 0], [-100, 6, 7, -100]),
        ],
    )
    def test_padding_behind_token_ids_is_removed(
        self, mask: list[int] | None, ids: list[int], labels: list[int]
    ) -> None:
        row = {"input_ids": [5, 6, 7, 0], "labels": [-100, 6, 7, -100], "attention_mask": mask}
        (example,) = examples(row)
        assert (example["input_ids"], example["labels"]) == (ids, labels)
        unpadded = {"input_ids": ids, "labels": labels}
        assert example["content_hash"] == examples(unpadded)[0]["content_hash"]

    @pytest.mark.parametrize(
        ("mask", "reason"),
        [
            ([1, 0, 1], "attention_mask hides tokens: store the row without padding"),
            ([0, 0, 0], "input_ids is empty"),
            ([1, 0], "attention_mask has 2 entries and input_ids 3"),
        ],
    )
    def test_other_masks_than_of_padding_behind(self, mask: list[int], reason: str) -> None:
        good = {"input_ids": [1, 2], "attention_mask": [1, 1]}
        assert reason_of({"input_ids": [1, 2, 3], "attention_mask": mask}, good) == reason

    @pytest.mark.parametrize(
        ("value", "shown"), [(None, "null"), ("", "empty"), (math.nan, "nan"), (True, "bool"), ([1], "list")]
    )
    def test_an_id_that_names_nothing(self, value: object, shown: str) -> None:
        bad, good = {"key": value, "text": "a"}, {"key": 7, "text": "b"}
        assert reason_of(bad, good, id="key") == f"id (column 'key') is {shown}, not text or a number"

    def test_a_second_row_with_the_same_id_while_the_first_is_kept(self) -> None:
        shard = normalised({"id": 7, "text": "first"}, {"id": "7", "text": "second"}, id="id")
        assert shard.examples["text"].to_pylist() == ["first"]
        assert shard.rejected.to_pylist() == [
            {
                "example_id": "7",
                "row": 1,
                "reason": "duplicate id: row 0 has it already",
                "excerpt": '{"id": "7", "text": "second"}',
            }
        ]

    def test_a_row_set_aside_does_not_take_its_id(self) -> None:
        assert examples({"id": "a", "text": ""}, {"id": "a", "text": "good"}, id="id")[0]["text"] == "good"

    def test_malformed_lines_are_among_them_and_rows_keep_their_numbers(self) -> None:
        lines = (MalformedRow(2, "malformed JSON", '{"te'),)
        shard = RawShard("a.jsonl", ("text",), ((0, {"text": "a"}), (1, {"text": ""}), (3, {"text": "b"})), lines)
        result = normalise(shard, Columns(), "s-00000")
        assert result.examples["example_id"].to_pylist() == ["s-00000/000000", "s-00000/000003"]
        assert result.rejected.drop_columns(["reason"]).to_pylist() == [
            {"example_id": "s-00000/000001", "row": 1, "excerpt": '{"text": ""}'},
            {"example_id": "s-00000/000002", "row": 2, "excerpt": '{"te'},
        ]

    def test_the_excerpt_is_short_and_can_be_stored(self) -> None:
        shard = normalised({"text": "a"}, {"text": "\ud800" + "x" * 1000})
        assert shard.rejected["excerpt"].to_pylist() == ['{"text": "?' + "x" * 189]

    def test_a_shard_of_nothing_else_is_refused_with_the_first_reasons(self) -> None:
        with pytest.raises(SourceError, match=r"a\.jsonl.*none of 2 rows.*\(row 0: malformed; row 1: text is empty\)"):
            normalise(
                RawShard("a.jsonl", ("text",), ((1, {"text": ""}),), (MalformedRow(0, "malformed", "x"),)),
                Columns(),
                "s-00000",
            )

    def test_a_shard_without_rows_is_refused(self) -> None:
        with pytest.raises(SourceError, match=r"a\.jsonl.*empty, no rows"):
            normalised()

    def test_a_shard_of_malformed_lines_is_refused(self) -> None:
        with pytest.raises(SourceError, match="none of 1 rows"):
            normalise(raw(malformed=(MalformedRow(0, "malformed", "x"),)), Columns(text="text"), "s-00000")


class TestMetadata:
    def test_it_is_every_column_without_a_role_in_the_order_of_names(self) -> None:
        (example,) = examples({"z": 1, "text": "t", "key": "k", "a": None}, id="key")
        assert example["metadata"] == '{"a": null, "z": 1}'

    def test_it_is_the_columns_named(self) -> None:
        assert examples({"text": "t", "a": 1, "b": 2}, metadata=("b",))[0]["metadata"] == '{"b": 2}'
        assert examples({"text": "t", "a": 1}, metadata=())[0]["metadata"] == "{}"

    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            (float("nan"), None),
            (float("-inf"), None),
            (0.5, 0.5),
            (True, True),
            (datetime(2024, 5, 1, 12, 30), "2024-05-01T12:30:00"),
            (date(2024, 5, 1), "2024-05-01"),
            (Decimal("1.50"), "1.50"),
            (b"\x00\x01", "<2 bytes>"),
            ({1: [b"", float("inf")]}, {"1": ["<0 bytes>", None]}),
            ((1, 2), [1, 2]),
            ("é\ud800", "é?"),
        ],
    )
    def test_its_values_are_json(self, value: object, stored: object) -> None:
        assert json.loads(examples({"text": "t", "value": value})[0]["metadata"]) == {"value": stored}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
filled_text = st.text(min_size=1).filter(str.strip)


class TestHashes:
    def test_they_are_the_same_in_every_process_and_version(self) -> None:
        shard = normalised({"text": "a", "topic": "x"})
        assert shard.examples["content_hash"].to_pylist() == ["ae2460d6e6483141d7da3d91b0eb52a4"]
        assert shard.shard_hash == "6eecfbedf314ee9fa7270531e0e26ff4"

    @given(st.dictionaries(st.text(min_size=1).filter(lambda name: name != "text"), json_values, max_size=4), st.data())
    def test_the_order_of_metadata_keys_does_not_matter(self, metadata: dict[str, Any], data: st.DataObject) -> None:
        row = {"text": "a", **metadata}
        shuffled = dict(data.draw(st.permutations(list(row.items()))))
        one, other = normalised(row, text="text"), normalised(shuffled, text="text")
        assert one.shard_hash == other.shard_hash
        assert one.examples.equals(other.examples)

    @given(filled_text, filled_text)
    def test_any_change_of_a_text_changes_both(self, one: str, other: str) -> None:
        assume(one != other)
        assert_hashes_differ({"text": one}, {"text": other})

    @given(st.tuples(st.text(), filled_text), st.tuples(st.text(), filled_text))
    def test_any_change_of_prompt_or_completion_changes_both(
        self, one: tuple[str, str], other: tuple[str, str]
    ) -> None:
        assume(one != other)
        first, second = ({"prompt": prompt, "completion": completion} for prompt, completion in (one, other))
        assert_hashes_differ(first, second)

    @given(*[st.lists(st.integers(0, 9), min_size=1, max_size=4)] * 2)
    def test_any_change_of_token_ids_changes_both(self, one: list[int], other: list[int]) -> None:
        assume(one != other)
        assert_hashes_differ({"input_ids": one}, {"input_ids": other})

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [1, 2], "labels": [-100, 2]}),
            ({"messages": [USER, ASSISTANT]}, {"messages": [ASSISTANT]}),
            ({"messages": [ASSISTANT]}, {"messages": [{**ASSISTANT, "name": "x"}]}),
            ({"text": "a"}, {"prompt": "", "completion": "a"}),
        ],
    )
    def test_labels_turns_and_kind_of_content_enter_both(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        assert_hashes_differ(one, other)

    def test_fields_that_are_null_do_not_change_a_message(self) -> None:
        with_nulls = {"content": "hi", "tool_calls": None, "role": "assistant"}
        assert normalised({"messages": [ASSISTANT]}).shard_hash == normalised({"messages": [with_nulls]}).shard_hash

    def test_metadata_ids_and_order_enter_the_shards_hash_only(self) -> None:
        base = [{"id": "a", "text": "x", "topic": 1}, {"id": "b", "text": "y", "topic": 2}]
        variants = [
            base,
            [{**base[0], "topic": 3}, base[1]],
            [{**base[0], "id": "c"}, base[1]],
            base[::-1],
            base[:1],
        ]
        shards = [normalised(*rows, id="id") for rows in variants]
        assert len({shard.shard_hash for shard in shards}) == len(variants)
        assert len({h for shard in shards for h in shard.examples["content_hash"].to_pylist()}) == 2

    def test_rows_set_aside_do_not_enter(self) -> None:
        good = [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]
        with_bad = [good[0], {"id": "bad", "text": ""}, good[1]]
        assert normalised(*good, id="id").shard_hash == normalised(*with_bad, id="id").shard_hash


def assert_hashes_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = normalised(one), normalised(other)
    assert first.shard_hash != second.shard_hash
    assert first.examples["content_hash"] != second.examples["content_hash"]


def test_the_same_rows_have_the_same_hash_in_every_format(tmp_path: Path) -> None:
    rows = [
        {"id": k, "messages": [USER, {**ASSISTANT, "content": f"hi {k}"}], "day": f"2024-05-0{k}", "score": k / 4}
        for k in range(1, 4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Dataset.from_list(rows).save_to_disk(tmp_path / "dataset")
    write_deltalake(tmp_path / "table", pa.Table.from_pylist(rows))
    hashes = {}
    for path in ("rows.parquet", "rows.jsonl", "dataset", "table"):
        source = Source(name="s", path=path, columns=Columns(id="id"), buckets=1)
        (piece,) = list_shards(source, tmp_path)
        shard = normalise(read_shard(source, piece, tmp_path), source.columns, piece.shard)
        assert shard.examples["example_id"].to_pylist() == ["1", "2", "3"]
        hashes[path] = shard.shard_hash
    assert len(set(hashes.values())) == 1, hashes
