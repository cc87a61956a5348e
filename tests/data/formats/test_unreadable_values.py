"""Values that Python has no object for, and values of the wrong shape: the row is set aside with its reason."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.columns import column_roles
from lorif_assets.data.examples import sort_out
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.rows.arrow_values import UnreadableValue, rows_of
from lorif_assets.data.rows.json_values import DEEPEST, NestedTooDeepError, json_value, parsed_json
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import SourceError

GOOD_TEXT = ["a file", "it ends", "or fails"]
NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 3, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0\6\0\0\0"), pa.py_buffer(b"ok\xff\xfeyes"[:6])]
)
TOO_LATE = pa.array([0, 10_000_000, 1], pa.int32()).cast(pa.date32())
FAR_AWAY = pa.array([0, 9 * 10**18, 1], pa.int64()).cast(pa.timestamp("us"))
ON_MARS = pa.array([0, 1, 2], pa.int64()).cast(pa.timestamp("us", tz="Mars/Olympus"))
COLUMNS: dict[str, tuple[pa.Array, str, list[int]]] = {
    "bytes that are no text": (NOT_UTF8, "not UTF-8: invalid start byte at byte 0", [1]),
    "a date after the year 9999": (
        TOO_LATE,
        "a date32[day] out of range: dates and times are of the years 1 to 9999",
        [1],
    ),
    "a time after the year 9999": (FAR_AWAY, "a timestamp[us] out of range", [1]),
    "a time zone nobody knows": (ON_MARS, "the time zone 'Mars/Olympus' is unknown", [0, 1, 2]),
}


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def read(folder: Path, name: str, **settings: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Texts of the examples of a source, and its rejected rows."""
    source = Source(name="docs", path=name, **settings)
    texts: list[str] = []
    rejected: list[dict[str, Any]] = []
    for piece in list_shards(source, folder):
        sorted_out = sort_out(read_shard(source, piece, folder), source.columns, piece.shard)
        texts += sorted_out.examples["text"].to_pylist()
        rejected += sorted_out.rejected.to_pylist()
    return texts, rejected


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_value_of_parquet_that_cannot_be_read_sets_its_row_aside(kind: str, tmp_path: Path) -> None:
    values, reason, rows = COLUMNS[kind]
    pq.write_table(pa.table({"text": GOOD_TEXT, "when": values}), tmp_path / "rows.parquet")
    texts, rejected = read(tmp_path, "rows.parquet")
    assert texts == [text for k, text in enumerate(GOOD_TEXT) if k not in rows]
    assert [row["row"] for row in rejected] == rows
    for row in rejected:
        assert row["reason"].startswith(f"column 'when' cannot be read: {reason}")
        assert GOOD_TEXT[row["row"]] in row["excerpt"]


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_that_nobody_needs_may_hold_anything(kind: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": GOOD_TEXT, "when": COLUMNS[kind][0]}), tmp_path / "rows.parquet")
    texts, rejected = read(tmp_path, "rows.parquet", columns={"text": "text", "metadata": ()})
    assert (texts, rejected) == (GOOD_TEXT, [])


def test_text_and_ids_of_parquet_may_be_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": NOT_UTF8, "id": ["a", "b", "c"]}), tmp_path / "rows.parquet")
    texts, rejected = read(tmp_path, "rows.parquet", columns={"id": "id"})
    assert len(texts) == 2
    assert rejected[0]["reason"].startswith("column 'text' cannot be read: not UTF-8")
    pq.write_table(pa.table({"text": GOOD_TEXT, "id": NOT_UTF8}), tmp_path / "rows.parquet")
    texts, rejected = read(tmp_path, "rows.parquet", columns={"id": "id"})
    assert len(texts) == 2
    assert rejected[0]["reason"].startswith("column 'id' cannot be read: not UTF-8")


def test_a_value_inside_a_list_or_struct_is_found(tmp_path: Path) -> None:
    nested = pa.StructArray.from_arrays([TOO_LATE], ["day"])
    pq.write_table(pa.table({"text": GOOD_TEXT, "about": nested}), tmp_path / "rows.parquet")
    texts, rejected = read(tmp_path, "rows.parquet")
    assert texts == ["a file", "or fails"]
    assert rejected[0]["reason"].startswith("column 'about' cannot be read: OverflowError")


def test_a_value_of_a_delta_table_that_cannot_be_read_sets_its_row_aside(tmp_path: Path) -> None:
    rows = pa.table({"id": ["a", "b", "c"], "text": GOOD_TEXT, "when": TOO_LATE})
    write_deltalake(tmp_path / "table", rows)
    settings = {"columns": {"id": "id"}, "buckets": 1}
    texts, rejected = read(tmp_path, "table", **settings)
    assert texts == ["a file", "or fails"]
    assert rejected[0]["example_id"] == "docs-00000/000001" or rejected[0]["example_id"] == "b"
    write_deltalake(tmp_path / "table", rows.slice(2).set_column(0, "id", [["d"]]), mode="append")
    assert len(read(tmp_path, "table", **settings)[0]) == 3


def test_what_can_be_read_is_what_it_was() -> None:
    table = pa.table({"a": [1, None, 3], "b": [date(2026, 1, 1)] * 3, "c": [["x"], [], None]})
    assert rows_of(table) == table.to_pylist()
    assert rows_of(table.append_column("d", NOT_UTF8))[0] == {**table.to_pylist()[0], "d": "ok"}
    assert isinstance(rows_of(table.append_column("d", NOT_UTF8))[1]["d"], UnreadableValue)


@pytest.mark.parametrize("levels", [DEEPEST, DEEPEST + 1, 300, 900, 5_000, 100_000])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_row_that_is_nested_too_deep_is_set_aside_and_the_next_one_is_read(
    name: str, levels: int, tmp_path: Path
) -> None:
    row = '{"text": "deep", "more": %s}' % ("[" * (levels - 1) + '"]\\"["' + "]" * (levels - 1))
    rows = [row, '{"text": "flat"}']
    (tmp_path / name).write_text("\n".join(rows) if name.endswith("l") else f"[{', '.join(rows)}]")
    texts, rejected = read(tmp_path, name)
    if levels <= DEEPEST:
        assert (texts, rejected) == (["deep", "flat"], [])
    else:
        assert texts == ["flat"]
        assert "lists and objects are nested more than 100 deep" in rejected[0]["reason"]


def test_what_is_nested_in_a_text_is_counted_too() -> None:
    for text in (json.dumps(deep(900)), "[" * 100_000 + "]" * 100_000):
        for messages, tools in ((text, None), ([{"role": "assistant", "content": "a"}], text)):
            raw = RawShard("here", ("messages", "tools"), ((0, {"messages": messages, "tools": tools}),))
            (rejected,) = sort_out(raw, Columns(), "docs").rejected.to_pylist()
            assert "nested more than 100 deep" in rejected["reason"]


def test_depth_is_measured_alike_in_text_and_in_values() -> None:
    for value in (deep(DEEPEST), {"a": deep(DEEPEST - 1)}):
        assert parsed_json(json.dumps(value)) == json_value(value) == value
    for value in (deep(DEEPEST + 1), {"a": deep(DEEPEST)}):
        with pytest.raises(NestedTooDeepError):
            parsed_json(json.dumps(value))
        with pytest.raises(NestedTooDeepError):
            json_value(value)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3))
NAMES = st.sampled_from(
    ["role", "content", "from", "value", "tool_calls", "function", "name", "arguments", "type", "text", "weight"]
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["assistant", "user"]), "content": VALUES}, optional={
        "tool_calls": VALUES, "function_call": VALUES, "thinking": VALUES, "weight": VALUES,
    }), max_size=3,
)  # fmt: skip
LAYOUTS: Sequence[tuple[str, ...]] = [
    ("text",), ("prompt", "completion", "label"), ("messages", "tools"), ("conversations", "system", "tools"),
    ("input_ids", "labels", "attention_mask"),
]  # fmt: skip


@given(st.sampled_from(LAYOUTS), st.data())
def test_a_value_of_any_shape_in_any_column_is_read_or_set_aside(names: tuple[str, ...], data: st.DataObject) -> None:
    drawn = st.one_of(VALUES, MESSAGES, st.lists(st.integers(0, 9), max_size=3))
    row = {name: data.draw(drawn, label=name) for name in (*names, "id", "other")}
    roles = column_roles(Columns(id="id"), tuple(row), "here")
    assert set(roles.columns) >= {"id", "other"}
    sorted_out = sort_out(RawShard("here", tuple(row), ((0, row),)), Columns(id="id"), "docs")
    assert sorted_out.examples.num_rows + sorted_out.rejected.num_rows == 1
    for stored in sorted_out.examples["messages"].to_pylist():
        if stored is not None:
            assert Conversation.parse(stored).messages


def test_a_saved_dataset_with_such_a_value_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = pa.table({"text": GOOD_TEXT, "when": FAR_AWAY})
    datasets.Dataset(rows).save_to_disk(str(tmp_path / "saved"))
    try:
        texts, rejected = read(tmp_path, "saved")
    except SourceError as error:
        pytest.fail(str(error))
    assert texts == ["a file", "or fails"]
    assert len(rejected) == 1
