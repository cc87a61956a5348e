"""What a query asks about: one field of its row, read, hashed and set aside where it cannot be used."""

import json
import unicodedata
from pathlib import Path
from typing import Any, Literal

import pytest

from lorif_assets.config.sources import Columns
from lorif_assets.data.content.query_objectives import NO_SCALARS, ScalarRules
from lorif_assets.data.examples import NormalisedShard, sort_out
from lorif_assets.data.formats.reader import RawShard

PLAIN = {"prompt": "The capital of France is", "completion": " Paris, of course"}


def read(
    *rows: dict[str, Any], rules: ScalarRules | None = NO_SCALARS, columns: Columns | None = None
) -> NormalisedShard:
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return sort_out(RawShard("queries", names, tuple(enumerate(rows))), columns or Columns(), "queries", rules)


def objectives(*rows: dict[str, Any], **options: Any) -> list[Any]:
    found = read(*rows, **options)
    assert not found.rejected.num_rows, found.rejected.to_pylist()
    return [json.loads(text) if text else None for text in found.examples["objective"].to_pylist()]


def reason(row: dict[str, Any], **options: Any) -> str:
    found = read(row, **options)
    assert not found.examples.num_rows
    return str(found.rejected["reason"][0].as_py())


def test_each_field_is_read_and_rows_without_one_ask_about_what_they_say() -> None:
    members = [{"prompt": "Q:", "completion": " yes", "weight": 2}, {"completion": "sure"}]
    assert objectives(
        PLAIN,
        {**PLAIN, "span": "Paris"},
        {**PLAIN, "span": [1, 6]},
        {**PLAIN, "span": "[1, 6]"},
        {**PLAIN, "against": " London"},
    ) == [None, {"span": "Paris"}, {"span": [1, 6]}, {"span": [1, 6]}, {"against": " London"}]
    whole = [{"prompt": "Q:", "completion": " yes", "weight": 2.0}, {"prompt": "", "completion": "sure", "weight": 1.0}]
    assert objectives({"weighted": members}, {"weighted": json.dumps(members)}) == [{"weighted": whole}] * 2


def test_a_span_in_brackets_is_a_text_where_the_query_says_it() -> None:
    row = {"prompt": "a =", "completion": " [1, 6] + [x]"}
    assert objectives({**row, "span": "[1, 6]"}, {**row, "span": "[x]"}, {**row, "span": "[1, 5]"}) == [
        {"span": "[1, 6]"},
        {"span": "[x]"},
        {"span": [1, 5]},
    ]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD", "NFKD"])
def test_a_span_is_found_in_whichever_normal_form_the_query_says_it(
    form: Literal["NFC", "NFD"], other: Literal["NFC", "NFD", "NFKD"]
) -> None:
    said = unicodedata.normalize(form, "près de la rivière, l'été")
    (asked,) = objectives({"text": said, "span": unicodedata.normalize(other, "rivière")})
    assert asked["span"] == unicodedata.normalize(form, "rivière")


def test_a_weighted_set_says_what_its_first_member_says() -> None:
    (row,) = read({"id": "polite", "weighted": [{"prompt": "Hi.", "completion": " Hello!"}]}).examples.to_pylist()
    assert (row["prompt"], row["completion"], row["format"]) == ("Hi.", " Hello!", "prompt_completion")


def test_the_hash_covers_what_is_asked_and_stays_where_nothing_is() -> None:
    plain, span, other = read(PLAIN, {**PLAIN, "span": "Paris"}, {**PLAIN, "span": "course"}).examples["content_hash"]
    assert len({plain.as_py(), span.as_py(), other.as_py()}) == 3
    assert plain.as_py() == read(PLAIN, rules=None).examples["content_hash"][0].as_py()


def test_in_training_data_and_where_the_settings_say_so_the_columns_are_metadata() -> None:
    row = {**PLAIN, "span": "anything", "against": "b"}
    (training,) = read(row, rules=None).examples.to_pylist()
    assert json.loads(training["metadata"]) == {"span": "anything", "against": "b"}
    (kept,) = read(row, columns=Columns(metadata=("span", "against"))).examples.to_pylist()
    assert kept["objective"] is None
    assert json.loads(kept["metadata"]) == {"span": "anything", "against": "b"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"span": "Lyon"}, "the span 'Lyon' occurs 0 times"),
        ({"span": "r"}, "the span 'r' occurs 2 times"),
        ({"span": [3, 99]}, "the span [3, 99] is not within the 17 characters"),
        ({"span": [3, 3]}, "is not within"),
        ({"span": [True, 4]}, "neither a text nor"),
        ({"span": 4}, "neither a text nor"),
        ({"span": "[1, "}, "the span '[1, ' occurs 0 times"),
        ({"against": " Paris, of course"}, "the contrast is nothing"),
        ({"against": 3}, "'against' is 3, not the text"),
        ({"span": "Paris", "against": " London"}, "'span' and 'against' are both set"),
        ({"weighted": [{"completion": "x"}]}, "beside 'weighted', the row has prompt and completion of its own"),
        ({"scalar": "probes.py:honesty"}, "set queries.allow_scalars"),
    ],
)
def test_a_value_that_cannot_be_used_sets_the_query_aside(fields: dict[str, Any], expected: str) -> None:
    assert expected in reason({**PLAIN, **fields})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], "no list of"),
        ("{", "no JSON"),
        ([3], "member 0"),
        ([{"completion": "x", "wait": 1}], "member 0"),
        ([{"completion": " "}], "member 0 of 'weighted': completion is empty"),
        ([{"prompt": 3, "completion": "x"}], "member 0 of 'weighted': prompt is int, not text"),
        ([{"completion": "x"}, {"messages": "Hi."}], "member 1 of 'weighted': messages is text, but no list"),
        ([{"messages": [{"role": "user", "content": "Hi."}]}], "member 0 of 'weighted': no assistant message"),
        ([{"messages": [], "completion": "x"}], "member 0 of 'weighted' has messages and a prompt or completion"),
        ([{"prompt": "a", "completion": "x", "tools": "[]"}], "member 0 of 'weighted' has tools, but no chat"),
        ([{"completion": "x", "weight": 0}], "weight of member 0"),
        ([{"completion": "x", "weight": "many"}], "weight of member 0"),
        ([{"completion": "x", "weight": True}], "weight of member 0"),
        ([{"completion": "x", "weight": 10**400}], "weight of member 0"),
        ([{"completion": "x", "weight": float("nan")}], "weight of member 0 of 'weighted' is nan"),
        ([{"completion": "x", "weight": float("-inf")}], "weight of member 0 of 'weighted' is -inf"),
    ],
)
def test_a_weighted_set_that_cannot_be_used_is_set_aside(value: Any, expected: str) -> None:
    assert expected in reason({"weighted": value})


def test_members_of_a_weighted_set_may_be_chats_with_all_that_a_chat_of_a_row_has() -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}]
    call = {"type": "function", "function": {"name": "f", "arguments": {"zone": 1, "at": 2}}}
    tools = [{"type": "function", "function": {"name": "f"}}]
    members = [
        {"messages": [turns[0], {"role": "assistant", "content": "", "tool_calls": [call]}], "tools": tools},
        {"messages": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello!"}], "weight": -1},
        {"prompt": turns[:1], "completion": turns[1:]},
        {"prompt": "Hi.", "completion": " Hello!", "tools": []},
    ]
    (read_,) = objectives({"weighted": members})
    first, second, third, last = read_["weighted"]
    # A model saw the arguments in their order.
    assert [*first["messages"][1]["tool_calls"][0]["function"]["arguments"]] == ["zone", "at"]
    assert first["tools"] == tools
    assert [second["messages"], second["weight"]] == [turns, -1.0]
    assert third["messages"] == turns
    assert last == {"prompt": "Hi.", "completion": " Hello!", "weight": 1.0}
    # What is stored is what a line may say.
    assert objectives(read_) == [read_]
    (row,) = read({"weighted": members}).examples.to_pylist()
    assert row["format"] == "messages"
    assert json.loads(row["messages"])["tools"] == tools


@pytest.mark.parametrize("other", [PLAIN, {"text": "Paris"}, {"messages": [{"role": "assistant", "content": "Oui"}]}])
@pytest.mark.parametrize("empty", [None, ""])
def test_rows_with_a_weighted_set_stand_beside_rows_of_any_kind(other: dict[str, Any], empty: str | None) -> None:
    # As CSV and Parquet have them: each row has every column.
    sets = ([{"prompt": "Hi.", "completion": " Hello!"}], [{"messages": [{"role": "assistant", "content": "Hello!"}]}])
    rows = [
        {**other, "weighted": empty},
        *({**dict.fromkeys(other, empty), "weighted": json.dumps(one)} for one in sets),
    ]
    found = read(*rows)
    assert not found.rejected.num_rows, found.rejected.to_pylist()
    assert found.examples["format"].to_pylist()[1:] == ["prompt_completion", "messages"]


def test_sets_of_texts_and_scalars_are_hashed_in_the_order_that_they_always_were(tmp_path: Path) -> None:
    (text,) = read({"weighted": [{"weight": 2, "prompt": "Q:", "completion": "é"}]}).examples["objective"].to_pylist()
    assert text == '{"weighted": [{"completion": "é", "prompt": "Q:", "weight": 2.0}]}'
    (tmp_path / "probes.py").write_text(TestScalars.CODE)
    rules = ScalarRules(allowed=True, base=tmp_path)
    (text,) = read({**PLAIN, "scalar": "probes.py:doubled"}, rules=rules).examples["objective"].to_pylist()
    assert [*json.loads(text)["scalar"]] == ["file", "hash", "name"]


def test_a_chat_is_held_against_another_last_answer() -> None:
    question, answer = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
    assert objectives({"messages": [question, answer], "against": "No."}) == [{"against": "No."}]
    assert "the contrast is nothing" in reason({"messages": [question, answer], "against": "So."})
    for end in (question, {**answer, "weight": 0}):
        ending = {"messages": [question, answer, question, end], "against": "No."}
        assert "is another answer at the end of a chat, and this one ends with a message by" in reason(ending)
    assert "'against' is for completions, texts and chats" in reason({"input_ids": [1, 2], "against": "No."})


def test_a_chat_has_no_span_in_characters() -> None:
    chat = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}
    assert "name the span of a chat by its text" in reason({**chat, "span": [0, 1]})
    assert objectives({**chat, "span": "So"}) == [{"span": "So"}]


class TestScalars:
    CODE = "def doubled(output, batch):\n    return 2 * output.logits.sum((1, 2))\n"

    def test_the_hash_covers_the_code(self, tmp_path: Path) -> None:
        rules = ScalarRules(allowed=True, base=tmp_path)
        (tmp_path / "probes.py").write_text(self.CODE)
        before = read({**PLAIN, "scalar": "probes.py:doubled"}, rules=rules).examples
        assert json.loads(before["objective"][0].as_py())["scalar"]["name"] == "probes.py:doubled"
        (tmp_path / "probes.py").write_text(self.CODE.replace("2 *", "3 *"))
        after = read({**PLAIN, "scalar": "probes.py:doubled"}, rules=rules).examples
        assert before["content_hash"] != after["content_hash"]

    @pytest.mark.parametrize(
        ("named", "expected"),
        [
            ("probes.py", "is not 'module:function'"),
            ("none.py:f", "there is no file"),
            ("no.such.module:f", "cannot be found"),
            ("nosuchmodule:f", "there is no module"),
            ("probes.py:other", "has no function 'other'"),
            ("broken.py:f", "cannot be imported"),
            (3, "not 'module:function'"),
        ],
    )
    def test_code_that_is_not_there_sets_the_query_aside(self, tmp_path: Path, named: Any, expected: str) -> None:
        (tmp_path / "probes.py").write_text(self.CODE)
        (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
        assert expected in reason({**PLAIN, "scalar": named}, rules=ScalarRules(allowed=True, base=tmp_path))
