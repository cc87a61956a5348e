"""Rows of a source as they came, written again and read back."""

import json
from datetime import UTC, datetime
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.examples import sort_out
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.data.source_rows import source_rows
from lorif_assets.data.written_rows import LINEAGE_KEY, write_json_lines, write_parquet
from lorif_assets.errors import MismatchError, SettingsError, SourceError

CHAT = [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": "Four."}]
CALL = {"role": "assistant", "content": "I look.", "tool_calls": [{"name": "look", "arguments": {"where": "there"}}]}
WHEN = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
TYPED = pa.table(
    {
        "id": pa.array([7, 8, 9], pa.int32()),
        "text": pa.array(["a file", "a dict", "a set"], pa.large_string()),
        "when": pa.array([WHEN] * 3, pa.timestamp("us", "UTC")),
        "topic": pa.array(["files", "dicts", "sets"], pa.string_view()),
        "scores": pa.array([[0.5], None, []], pa.list_(pa.float32())),
        "picture": pa.array([b"\x00\xff"] * 3, pa.binary()),
    }
)


def source(path, **columns):
    return Source(name="docs", path=str(path), rows_per_shard=2, buckets=1, columns=Columns(**columns))


def parts(defined, base, places=None):
    """The rows of each shard, all of them or those at some places."""
    for piece in list_shards(defined, base):
        examples = sort_out(read_shard(defined, piece, base), defined.columns, piece.shard)
        rows = examples.examples["row"].to_pylist()
        yield source_rows(defined, piece, base, examples.shard_hash, rows if places is None else places)


def written(defined, base, file="out.parquet"):
    path = base / file
    if path.suffix == ".jsonl":
        write_json_lines(path, parts(defined, base))
    else:
        write_parquet(path, "docs", parts(defined, base), {"rows": 3})
    return path


def lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_parquet_file_keeps_the_types_of_its_columns_and_what_was_said_of_them(tmp_path):
    table = TYPED.replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(table, tmp_path / "in.parquet")
    back = pq.read_table(written(source(tmp_path / "in.parquet", id="id", text="text"), tmp_path))
    assert back.equals(table)
    assert back.schema.metadata[b"huggingface"] == b"{}"
    assert json.loads(back.schema.metadata[LINEAGE_KEY.encode()]) == {"rows": 3}
    assert not list(tmp_path.glob(".*"))


def test_a_saved_dataset_and_a_delta_table_keep_theirs(tmp_path):
    Dataset(TYPED).save_to_disk(str(tmp_path / "saved"))
    deltalake.write_deltalake(str(tmp_path / "delta"), TYPED)
    for name in ("saved", "delta"):
        back = pq.read_table(written(source(tmp_path / name, id="id", text="text"), tmp_path, f"{name}.parquet"))
        assert back.to_pylist() == TYPED.to_pylist()
        assert back.schema.field("id").type == pa.int32()


def test_only_the_rows_at_the_places_are_taken_in_their_order(tmp_path):
    pq.write_table(TYPED, tmp_path / "in.parquet")
    defined = source(tmp_path / "in.parquet", id="id", text="text").model_copy(update={"rows_per_shard": 3})
    (chosen,) = parts(defined, tmp_path, [0, 2])
    assert chosen.table()["topic"].to_pylist() == ["files", "sets"]


def test_chats_of_json_lines_stay_chats_with_all_that_they_have(tmp_path):
    rows = [{"messages": CHAT, "n": 1}, {"messages": [*CHAT[:1], CALL], "n": 2.5}, {"messages": CHAT, "topic": "sums"}]
    defined = source(lines(tmp_path / "in.jsonl", rows), messages="messages")
    back = source(written(defined, tmp_path), messages="messages")

    def contents(one):
        shards = list_shards(one, tmp_path)
        read = [sort_out(read_shard(one, piece, tmp_path), one.columns, piece.shard).examples for piece in shards]
        return pa.concat_tables(read)["messages"].to_pylist()

    assert contents(back) == contents(defined)
    assert pq.read_table(tmp_path / "out.parquet")["n"].to_pylist() == [1.0, 2.5, None]
    assert [json.loads(line) for line in written(defined, tmp_path, "out.jsonl").read_text().splitlines()] == rows


@pytest.mark.parametrize("at", [1, 2], ids=["in one shard", "in another shard"])
def test_values_without_a_type_in_common_are_refused_for_parquet_and_kept_in_json_lines(tmp_path, at):
    rows = [{"text": "a file", "page": 1}, {"text": "a dict", "page": 2}, {"text": "a set", "page": 3}]
    rows[at]["page"] = "iv"
    defined = source(lines(tmp_path / "in.jsonl", rows), text="text")
    with pytest.raises(SourceError, match=r"no type for all values of the column 'page'.*\.jsonl"):
        written(defined, tmp_path)
    assert [json.loads(line) for line in written(defined, tmp_path, "out.jsonl").read_text().splitlines()] == rows


def test_half_a_surrogate_pair_is_written_to_json_lines_as_it_came(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a", "note": "\\ud83d"}\n{"text": "\\u00e9"}\n')
    path = written(source(tmp_path / "in.jsonl", text="text"), tmp_path, "out.jsonl")
    assert path.read_text() == '{"text": "a", "note": "\\ud83d"}\n{"text": "é"}\n'


def test_an_object_without_fields_is_refused_by_parquet_with_what_to_do(tmp_path):
    defined = source(lines(tmp_path / "in.jsonl", [{"text": "a", "extra": {}}]), text="text")
    with pytest.raises(SourceError, match=r"cannot be written as Parquet.*\.jsonl"):
        written(defined, tmp_path)


def test_types_that_json_does_not_have_are_not_written_as_json_lines(tmp_path):
    pq.write_table(TYPED, tmp_path / "in.parquet")
    with pytest.raises(SourceError, match="have the types of Parquet, and are written as Parquet alone"):
        written(source(tmp_path / "in.parquet", id="id", text="text"), tmp_path, "out.jsonl")


def test_weights_are_a_column_more_that_no_column_is_lost_to(tmp_path):
    pq.write_table(TYPED.replace_schema_metadata({"huggingface": "{}"}), tmp_path / "in.parquet")
    of_lines = source(lines(tmp_path / "in.jsonl", TYPED.select(["text"]).to_pylist()), text="text")
    for defined in (source(tmp_path / "in.parquet", id="id", text="text"), of_lines):
        first, *_ = parts(defined, tmp_path)
        weighted = first.with_weights("weight", np.array([0.5, 1.5])).table()
        assert weighted["weight"].to_pylist() == [0.5, 1.5]
        assert weighted["text"].to_pylist() == ["a file", "a dict"]
        assert b"huggingface" not in (weighted.schema.metadata or {})
        with pytest.raises(SettingsError, match="has a column 'text' already"):
            first.with_weights("text", np.array([0.5, 1.5]))


def test_rows_of_a_source_that_changed_since_are_refused(tmp_path):
    defined = source(lines(tmp_path / "in.jsonl", [{"text": "a file"}]), text="text")
    (piece,) = list_shards(defined, tmp_path)
    with pytest.raises(MismatchError, match=r"'docs-00000' has changed since it was attributed.*lorif materialize"):
        source_rows(defined, piece, Path(tmp_path), "another hash", [0])
