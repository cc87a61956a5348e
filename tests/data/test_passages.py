"""The readable content of examples that scores point to."""

import json
from typing import Any

import pytest

from lorif_assets.data.passages import (
    Part,
    asked_and_said,
    passage_metadata,
    passage_parts,
    passage_text,
    passages,
    whole_text,
)
from tests.conftest import SHARDS, TinyProject


def test_passages_are_found_by_shard_and_id(tiny_project: TinyProject) -> None:
    wanted = [(SHARDS[0], "doc0-3"), (SHARDS[2], "doc2-0"), (SHARDS[0], "doc0-3")]
    found = passages(tiny_project.lake, wanted)
    assert {key: (row["shard"], row["example_id"]) for key, row in found.items()} == {key: key for key in wanted}
    assert passage_metadata(found[SHARDS[0], "doc0-3"]) == {"topic": "files"}


def test_an_id_of_another_shard_is_not_found_there(tiny_project: TinyProject) -> None:
    found = passages(tiny_project.lake, [(SHARDS[0], "doc1-0"), (SHARDS[1], "doc1-0"), (SHARDS[1], "gone")])
    assert found[SHARDS[1], "doc1-0"]["text"]
    assert (SHARDS[0], "doc1-0") not in found
    assert (SHARDS[1], "gone") not in found


def test_no_examples_have_no_passages(tiny_project: TinyProject) -> None:
    assert passages(tiny_project.lake, []) == {}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"format": "text", "text": "a file"}, "a file"),
        ({"format": "prompt_completion", "prompt": "a file", "completion": " ends"}, "a file ends"),
        (
            {
                "format": "messages",
                "messages": json.dumps({"messages": [{"role": "user", "content": "Why?"}], "tools": [{"name": "f"}]}),
            },
            "[user] Why?",
        ),
        (
            {
                "format": "messages",
                "messages": json.dumps([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]),
            },
            "[user] Why?\n\n[assistant] So.",
        ),
        (
            {
                "format": "messages",
                "messages": json.dumps(
                    [
                        {"role": "assistant", "reasoning_content": "Hm.", "thinking": "Hm.", "content": "So."},
                        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]},
                    ]
                ),
            },
            '[assistant] Hm.\nSo.\n\n[assistant] [{"function": {"name": "f"}}]',
        ),
        ({"format": "input_ids", "input_ids": [5, 6, 7]}, "3 token ids: 5 6 7"),
        ({"format": "input_ids", "input_ids": list(range(100))}, f"100 token ids: {' '.join(map(str, range(64)))} ..."),
    ],
)
def test_every_format_has_a_readable_text(row: dict[str, Any], text: str) -> None:
    assert passage_text(row) == text


def test_missing_metadata_are_none_at_all() -> None:
    assert passage_metadata({"metadata": None}) == {}
    assert passage_metadata({"metadata": '{"topic": "with"}'}) == {"topic": "with"}


def test_the_parts_of_a_chat_tell_who_says_them_and_what_carries_loss() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": " brief."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": "Not counted.", "weight": 0},
        {"role": "assistant", "content": "So."},
    ]
    parts = passage_parts({"format": "messages", "messages": json.dumps(messages)})
    assert parts == (
        Part("Be brief.", carries_loss=False, role="system"),
        Part(json.dumps([call]), carries_loss=True, role="assistant"),
        Part("Not counted.", carries_loss=False, role="assistant"),
        Part("So.", carries_loss=True, role="assistant"),
    )


def test_a_reader_is_shown_the_calls_of_a_chat_and_no_more_than_the_words_of_contents_in_pieces() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Is it cold?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": "Yes."},
    ]
    row = {"format": "messages", "messages": json.dumps(turns)}
    assert passage_text(row) == f"[user] Is it cold?\n\n[assistant] {json.dumps([call])}\n\n[assistant] Yes."
    assert passage_text({"format": "text", "text": "as it is"}) == "as it is"


def test_of_a_chat_the_last_answer_that_is_trained_on_is_what_was_said() -> None:
    said = [
        ("system", "Be brief."),
        ("user", "Who?"),
        ("assistant", "A fox."),
        ("user", "Sure?"),
        ("assistant", "Yes."),
    ]
    messages = [{"role": role, "content": content} for role, content in said]
    assert asked_and_said({"format": "messages", "messages": json.dumps(messages)}) == (
        "[system] Be brief.\n\n[user] Who?\n\n[assistant] A fox.\n\n[user] Sure?\n\n[assistant] ",
        "Yes.",
    )
    untrained = {"format": "messages", "messages": json.dumps([*messages[:-1], {**messages[-1], "weight": 0}])}
    assert asked_and_said(untrained) == ("[system] Be brief.\n\n[user] Who?\n\n[assistant] ", "A fox.")


def test_what_was_said_is_the_completion_or_all_that_there_is() -> None:
    row = {"format": "prompt_completion", "prompt": "Who? ", "completion": "A fox."}
    assert asked_and_said(row) == ("Who? ", "A fox.")
    assert asked_and_said({"format": "text", "text": "as it is"}) == ("", "as it is")


def test_a_prompt_carries_no_loss_and_what_has_none_is_one_part() -> None:
    asked = {"format": "prompt_completion", "prompt": "Why?", "completion": " So."}
    assert passage_parts(asked) == (Part("Why?", carries_loss=False), Part(" So.", carries_loss=True))
    assert passage_parts({**asked, "prompt": ""}) == (Part(" So.", carries_loss=True),)
    assert passage_parts({"format": "input_ids", "input_ids": [5, 6]}) == (Part("2 token ids: 5 6", carries_loss=True),)


def test_the_whole_of_an_example_has_every_token_id_of_which_a_reader_is_shown_the_first() -> None:
    rows: list[dict[str, Any]] = [{"format": "input_ids", "input_ids": [*range(100), last]} for last in (1, 2)]
    assert passage_text(rows[0]) == passage_text(rows[1])
    assert whole_text(rows[0]) != whole_text(rows[1])
    assert whole_text({"format": "text", "text": "a file"}) == "a file"
