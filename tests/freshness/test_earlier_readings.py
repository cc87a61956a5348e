"""Rows that an earlier version stored in another form are read again; what it stored as now is left as it is."""

import json
from typing import Any

import pyarrow as pa
import pytest

from lorif_assets.data.earlier_readings import unmarked
from lorif_assets.data.rows.rejected import RejectedRow, rejected_table, replace_rejected
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.table_schema import TableSchema
from tests.conftest import SHARDS, TinyProject

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": 2}}}]}


@pytest.fixture
def chats(private_project: TinyProject) -> TinyProject:
    """The project with a source and a query set of chats, and one of chats without anything but text."""
    for folder, rows in {"tools": [USER, CALL], "plain": [USER, ANSWER]}.items():
        text = json.dumps({"messages": rows})
        (private_project.root / folder).mkdir()
        (private_project.root / folder / "a.jsonl").write_text(text)
        (private_project.root / f"queries/{folder}.jsonl").write_text(text)
    toml = private_project.root / "lorif.toml"
    sources = "".join(f'[[sources]]\nname = "{name}"\npath = "{name}"\n' for name in ("tools", "plain"))
    toml.write_text((sources + toml.read_text()).replace('[queries]\ncolumns = { id = "id" }', ""))
    project = TinyProject.open(private_project.root, private_project.instance)
    for shard in ("tools-a-00000", "plain-a-00000"):
        project.run("training_examples", shard)
    for query_set in ("tools", "plain"):
        project.run("query_examples", query_set)
    return project


def as_an_earlier_version(project: TinyProject, table: TableSchema, part: str, mark: str = "", **changed: Any) -> None:
    """Store a part as a version wrote it that marked nothing, or this."""
    (key,) = table.partition_by
    rows = project.table(table, **{key: part}).to_arrow()
    for name, value in {
        "source_version": unmarked(rows["source_version"][0].as_py()) + mark,
        **changed,
    }.items():
        position = rows.column_names.index(name)
        rows = rows.set_column(position, name, pa.array([value] * rows.num_rows, pa.string()))
    project.lake.replace(table, {key: part}, rows)


def test_chats_with_tool_calls_are_read_again_once(chats: TinyProject) -> None:
    for table, asset, tools, plain in (
        (TRAINING_EXAMPLES, "training_examples", "tools-a-00000", "plain-a-00000"),
        (QUERY_EXAMPLES, "query_examples", "tools", "plain"),
    ):
        assert not chats.stale(asset).keys() & {tools, plain}
        as_an_earlier_version(chats, table, tools)
        as_an_earlier_version(chats, table, plain)
        (stale,) = ((key, found.reason) for key, found in chats.stale(asset).items() if key in {tools, plain})
        assert stale == (tools, "an earlier version read its rows otherwise")
        chats.run(asset, tools)
        assert not chats.stale(asset).keys() & {tools, plain}


@pytest.mark.parametrize("column", ["tools", "system"])
def test_chats_whose_tools_or_system_message_were_metadata_are_read_again(chats: TinyProject, column: str) -> None:
    as_an_earlier_version(
        chats,
        TRAINING_EXAMPLES,
        "plain-a-00000",
        metadata=json.dumps({column: "x"}),
        shard_hash=f"with {column}",
    )
    assert "plain-a-00000" in chats.stale("training_examples")


@pytest.mark.parametrize(
    ("changed", "is_stale"),
    [
        ({"metadata": json.dumps({"chat_template_kwargs": {"enable_thinking": False}})}, True),
        ({"metadata": json.dumps({"tools": []})}, True),
        ({"messages": json.dumps([USER, {"content": "{}", "role": "function_call"}, ANSWER])}, True),
        ({"metadata": json.dumps({"system": "x"})}, False),
    ],
)
def test_chats_of_the_mark_before_are_read_again_where_they_are_read_otherwise_since(
    chats: TinyProject, changed: dict[str, str], is_stale: bool
) -> None:
    marked = {"mark": " chats-2", "shard_hash": json.dumps(changed), **changed}
    as_an_earlier_version(chats, TRAINING_EXAMPLES, "plain-a-00000", **marked)
    assert ("plain-a-00000" in chats.stale("training_examples")) is is_stale


def test_chats_with_calls_whose_nulls_may_have_been_left_out_are_read_again_and_no_others(chats: TinyProject) -> None:
    tools = {"metadata": json.dumps({"tools": []})}
    as_an_earlier_version(chats, TRAINING_EXAMPLES, "plain-a-00000", mark=" chats-3", shard_hash="with tools", **tools)
    as_an_earlier_version(chats, TRAINING_EXAMPLES, "tools-a-00000", mark=" chats-3")
    stale = chats.stale("training_examples")
    assert ("plain-a-00000" in stale, "tools-a-00000" in stale) == (False, True)


def test_token_ids_whose_masks_were_metadata_are_read_again_once(private_project: TinyProject) -> None:
    ids = {"input_ids": [5, 6, 7]}
    for name, row in {"masked": {**ids, "completion_mask": [0, 1, 1]}, "bare": ids}.items():
        (private_project.root / name).mkdir()
        (private_project.root / name / "a.jsonl").write_text(json.dumps(row))
    toml = private_project.root / "lorif.toml"
    sources = "".join(f'[[sources]]\nname = "{name}"\npath = "{name}"\n' for name in ("masked", "bare"))
    toml.write_text(sources + toml.read_text())
    project = TinyProject.open(private_project.root, private_project.instance)
    for shard in ("masked-a-00000", "bare-a-00000"):
        project.run("training_examples", shard)
    assert "masked-a-00000" not in project.stale("training_examples")
    metadata = json.dumps({"completion_mask": [0, 1, 1]})
    as_an_earlier_version(project, TRAINING_EXAMPLES, "masked-a-00000", metadata=metadata, shard_hash="unmasked")
    as_an_earlier_version(project, TRAINING_EXAMPLES, "bare-a-00000")
    assert "bare-a-00000" not in project.stale("training_examples")
    assert "masked-a-00000" in project.stale("training_examples")
    project.run("training_examples", "masked-a-00000")
    assert "masked-a-00000" not in project.stale("training_examples")
    for numbers, is_stale in (("segment_ids", True), ("page_ids", False)):
        changed = {"metadata": json.dumps({numbers: [1, 1, 2]}), "shard_hash": numbers}
        as_an_earlier_version(project, TRAINING_EXAMPLES, "bare-a-00000", mark=" ids-2", **changed)
        assert ("bare-a-00000" in project.stale("training_examples")) is is_stale


@pytest.mark.parametrize(
    "reason",
    [
        "id (column 'id') is float, not text or an integer",
        "seq_lengths shows 2 sequences in the row, each of which the model saw alone: give the source one row for each "
        "sequence. Where it saw them as one, leave the column out by columns.metadata",
        "attention_mask numbers 2 sequences in the row, each of which the model saw alone: give the source one row for each "
        "sequence",
    ],
)
def test_rows_set_aside_for_what_is_taken_now_are_read_again(private_project: TinyProject, reason: str) -> None:
    rejected = rejected_table([RejectedRow("x", 0, reason, "")])
    replace_rejected(private_project.lake, "training_examples", SHARDS[1], rejected)
    assert set(private_project.stale("training_examples")) == {SHARDS[1]}
    private_project.run("training_examples", SHARDS[1])
    assert private_project.stale("training_examples") == {}
