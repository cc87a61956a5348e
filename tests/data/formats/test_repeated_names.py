"""Two values under one name, in any format and at any depth, are refused or set aside: which one is meant, nobody can tell."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorif_assets.config.sources import Source
from lorif_assets.data.examples import sort_out
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.rows.json_values import RepeatedKeyError, parsed_json
from lorif_assets.data.rows.rejected import RejectedRow, rejected_table
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import SourceError


def _pair(kind: pa.DataType) -> pa.StructArray:
    values = pa.array(["a"], kind)
    return pa.StructArray.from_arrays([values, values], fields=[pa.field("inner", kind), pa.field("inner", kind)])


TABLES: dict[str, tuple[pa.Table, str]] = {
    "columns": (pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), "text"),
    "fields": (pa.table({"text": pa.array(["a"]), "more": _pair(pa.string())}), "inner"),
    "fields of a list": (
        pa.table({"text": pa.array(["a"]), "more": pa.ListArray.from_arrays([0, 1], _pair(pa.string()))}),
        "inner",
    ),
}


def _parquet(folder: Path, table: pa.Table) -> None:
    pq.write_table(table, folder / "rows.parquet")


def _dataset(folder: Path, table: pa.Table) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["a"]}).save_to_disk(folder)
    (file,) = folder.glob("*.arrow")
    with pa.OSFile(str(file), "wb") as stored, pa.ipc.new_stream(stored, table.schema) as stream:
        stream.write_table(table)


def _text(name: str, separator: str) -> Callable[[Path, pa.Table], None]:
    def write(folder: Path, table: pa.Table) -> None:
        lines = [table.column_names, [str(column[0]) for column in table.columns]]
        (folder / name).write_text("".join(separator.join(line) + "\n" for line in lines))

    return write


@pytest.mark.parametrize(
    ("write", "table"),
    [
        *((write, table) for write in (_parquet, _dataset) for table in TABLES),
        (_text("rows.csv", ","), "columns"),
        (_text("rows.tsv", "\t"), "columns"),
    ],
)
def test_a_table_with_two_columns_or_fields_of_one_name_is_refused_by_that_name(
    tmp_path: Path, write: Callable[[Path, pa.Table], None], table: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows, name = TABLES[table]
    write(folder, rows)
    with pytest.raises(SourceError, match=f"'?{name}'?") as caught:
        list_shards(Source(name="s", path="data"), tmp_path)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.ndjson"])
@pytest.mark.parametrize(
    "faulty",
    [
        '{"text": "a", "text": "b"}',
        '{"text": "a", "more": {"k": 1, "k": 1}}',
        '{"text": "a", "more": [{"k": 1, "k": 2}]}',
        r'{"text": "a", "te\u0078t": "b"}',
    ],
)
def test_an_object_with_a_repeated_key_is_set_aside_and_the_others_are_read(
    tmp_path: Path, name: str, faulty: str
) -> None:
    sound = json.dumps({"text": "sound"})
    file = tmp_path / name
    file.write_text(f"[{sound}, {faulty}, {sound}]" if name.endswith(".json") else f"{sound}\n{faulty}\n{sound}\n")
    source = Source(name="s", path=name)
    (piece,) = list_shards(source, tmp_path)
    read = sort_out(read_shard(source, piece, tmp_path), source.columns, piece.shard)
    assert read.examples["row"].to_pylist() == [0, 2]
    (bad,) = read.rejected.to_pylist()
    assert bad["row"] == 1
    assert "is there 2 times in one object" in bad["reason"]


def test_a_repeated_key_among_very_many_is_found_in_one_pass(tmp_path: Path) -> None:
    """Counting each key by itself would take hours, and a key may be as long as a row."""
    keys = [*(f"k{k}" for k in range(300_000)), "k299999", "x" * 5_000_000, "x" * 5_000_000]
    (tmp_path / "rows.jsonl").write_text("{" + ", ".join(f'"{key}": 1' for key in keys) + '}\n{"text": "sound"}\n')
    source = Source(name="s", path="rows.jsonl")
    (piece,) = list_shards(source, tmp_path)
    read = sort_out(read_shard(source, piece, tmp_path), source.columns, piece.shard)
    assert read.examples["text"].to_pylist() == ["sound"]
    assert "the key 'k299999' is there 2 times" in read.rejected["reason"][0].as_py()


def test_a_long_key_is_cut_in_what_is_said_of_it() -> None:
    with pytest.raises(RepeatedKeyError) as caught:
        parsed_json(f'{{"{"x" * 1_000_000}": 1, "{"x" * 1_000_000}": 2}}')
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "row",
    [
        {"messages": '[{"role": "user", "role": "system", "content": "x"}, {"role": "assistant", "content": "y"}]'},
        {
            "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
            "tools": '[{"name": "a", "name": "b"}]',
        },
    ],
)
def test_a_key_repeated_in_json_text_of_a_chat_or_a_tool_sets_the_row_aside(row: dict[str, object]) -> None:
    raw = RawShard("rows", tuple(row), ((0, row),))
    (bad,) = sort_out(raw, Source(name="s", path="x").columns, "s").rejected.to_pylist()
    assert "is there 2 times in one object" in bad["reason"]


def test_what_is_said_of_a_row_is_valid_unicode_and_of_a_length_to_be_read() -> None:
    """Roles, keys and columns are the row's own, and stand in reasons."""
    row = {"messages": [{"role": "\ud800" + "x" * 100_000, "content": "a"}]}
    (bad,) = sort_out(
        RawShard("rows", ("messages",), ((0, row),)), Source(name="s", path="x").columns, "s"
    ).rejected.to_pylist()
    assert len(bad["reason"]) <= 1_001
    assert rejected_table([RejectedRow("a", 0, "role '\ud800'", "")])["reason"].to_pylist() == ["role '?'"]
