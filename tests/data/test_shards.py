import csv
import gzip
import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.config.sources import Columns, Source, SourceFormat
from lorif_assets.data.formats.delta_buckets import BucketedTable
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.shards import list_shards, read_shard, read_source, survey
from lorif_assets.errors import SourceError


def texts(first: int, n: int) -> list[dict[str, Any]]:
    return [{"id": f"r{k}", "text": f"text {k}"} for k in range(first, first + n)]


def write_parquet(path: Path, rows: list[dict[str, Any]], row_group_size: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = None if rows else pa.schema({"id": pa.string(), "text": pa.string()})
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=row_group_size)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(compressed(path, data))


def compressed(path: Path, data: bytes) -> bytes:
    match path.suffix.lower():
        case ".gz":
            return gzip.compress(data)
        case ".zst":
            return bytes(pa.compress(data, codec="zstd", asbytes=True))
    return data


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(compressed(path, json.dumps(rows, indent=1).encode()))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    file = io.StringIO()
    table = csv.DictWriter(
        file, list(rows[0] if rows else ["id", "text"]), delimiter="\t" if ".tsv" in path.name else ","
    )
    table.writeheader()
    table.writerows(rows)
    path.write_bytes(compressed(path, file.getvalue().encode()))


def write_dataset(path: Path, rows: list[dict[str, Any]]) -> None:
    Dataset.from_list(rows).save_to_disk(path, num_shards=min(3, len(rows)))


WRITERS = {
    "rows.parquet": write_parquet,
    "rows.jsonl": write_jsonl,
    "rows.ndjson": write_jsonl,
    "rows.jsonl.gz": write_jsonl,
    "rows.JSONL.ZST": write_jsonl,
    "rows.json": write_json,
    "rows.json.gz": write_json,
    "rows.JSON.zst": write_json,
    "rows.csv": write_csv,
    "rows.CSV.gz": write_csv,
    "rows.tsv.zst": write_csv,
    "rows": write_dataset,
}


def source(path: str, **settings: Any) -> Source:
    return Source(name="s", path=path, **{"rows_per_shard": 10, **settings})


def delta_source(path: str = "table", **settings: Any) -> Source:
    return source(path, **{"columns": Columns(id="id"), "buckets": 4, **settings})


def bucket_of(row_id: object, buckets: int) -> int:
    return BucketedTable("table", "id", buckets).bucket_of(row_id)


def names(shards: Iterable[ShardSlice]) -> list[str]:
    return [piece.shard for piece in shards]


def contents(of: Source, base: Path) -> Mapping[str, list[Mapping[str, Any]]]:
    return {piece.shard: [values for _, values in read_shard(of, piece, base).rows] for piece in list_shards(of, base)}


class TestEveryFormat:
    @pytest.mark.parametrize("name", WRITERS)
    def test_one_file_is_cut_into_slices_that_hold_its_rows_in_order(self, tmp_path: Path, name: str) -> None:
        WRITERS[name](tmp_path / name, texts(0, 25))
        shards = list_shards(source(name), tmp_path)
        assert [(piece.shard, piece.offset, piece.rows) for piece in shards] == [
            ("s-00000", 0, 10),
            ("s-00001", 10, 10),
            ("s-00002", 20, 5),
        ]
        read = contents(source(name), tmp_path)
        assert [row for rows in read.values() for row in rows] == texts(0, 25)

    @pytest.mark.parametrize("name", WRITERS)
    def test_rows_are_numbered_within_their_shard(self, tmp_path: Path, name: str) -> None:
        WRITERS[name](tmp_path / name, texts(0, 15))
        shards = list_shards(source(name), tmp_path)
        assert [row for row, _ in read_shard(source(name), shards[1], tmp_path).rows] == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("name", WRITERS)
    def test_an_empty_source_is_refused(self, tmp_path: Path, name: str) -> None:
        if name == "rows":
            Dataset.from_dict({"text": []}).save_to_disk(tmp_path / name)
        else:
            WRITERS[name](tmp_path / name, [])
        with pytest.raises(SourceError, match=r"source 's': rows.* is empty"):
            list_shards(source(name), tmp_path)

    @pytest.mark.parametrize("name", WRITERS)
    def test_a_missing_column_is_named_with_the_file_and_the_columns_there(self, tmp_path: Path, name: str) -> None:
        WRITERS[name](tmp_path / name, texts(0, 3))
        wrong = source(name, columns=Columns(text="body"))
        (piece,) = list_shards(wrong, tmp_path)
        with pytest.raises(SourceError, match=rf"{name}.*no column 'body' \(columns.text\).*are: id, text"):
            read_shard(wrong, piece, tmp_path)

    @pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl.gz"])
    def test_a_file_that_is_not_what_its_name_says_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"neither")
        with pytest.raises(SourceError, match=rf"{name} cannot be read"):
            list_shards(source(name), tmp_path)

    def test_a_dataset_that_lost_a_file_is_refused(self, tmp_path: Path) -> None:
        write_dataset(tmp_path / "rows", texts(0, 6))
        next((tmp_path / "rows").glob("*.arrow")).unlink()
        with pytest.raises(SourceError, match="cannot be read as a saved `datasets` directory"):
            list_shards(source("rows"), tmp_path)

    def test_a_parquet_slice_may_span_row_groups_and_batches(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "rows.parquet", texts(0, 5_000), row_group_size=1_500)
        read = contents(source("rows.parquet", rows_per_shard=1_700), tmp_path)
        assert [row for rows in read.values() for row in rows] == texts(0, 5_000)

    def test_a_missing_metadata_column_is_refused(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "rows.parquet", texts(0, 3))
        wrong = source("rows.parquet", columns=Columns(metadata=("topic",)))
        with pytest.raises(SourceError, match=r"'topic' \(columns.metadata\)"):
            contents(wrong, tmp_path)

    @pytest.mark.parametrize("name", WRITERS)
    def test_a_source_that_changed_since_it_was_listed_is_refused(self, tmp_path: Path, name: str) -> None:
        WRITERS[name](tmp_path / name, texts(0, 3))
        (piece,) = list_shards(source(name), tmp_path)
        state = tmp_path / name / "state.json" if name == "rows" else tmp_path / name
        state.write_bytes(state.read_bytes() + b"\n")
        with pytest.raises(SourceError, match="has changed since"):
            read_shard(source(name), piece, tmp_path)

    @pytest.mark.parametrize("changed", [{"rows_per_shard": 11}, {"columns": Columns(text="id")}])
    def test_other_settings_make_another_version_and_the_same_do_not(
        self, tmp_path: Path, changed: dict[str, Any]
    ) -> None:
        write_parquet(tmp_path / "rows.parquet", texts(0, 3))
        versions = [
            list_shards(source("rows.parquet", **settings), tmp_path)[0].version for settings in ({}, {}, changed)
        ]
        assert versions[0] == versions[1] != versions[2]

    def test_a_file_that_went_since_it_was_listed_is_refused(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "rows.jsonl", texts(0, 3))
        (piece,) = list_shards(source("rows.jsonl"), tmp_path)
        (tmp_path / "rows.jsonl").unlink()
        with pytest.raises(SourceError, match="cannot be read: No such file"):
            read_shard(source("rows.jsonl"), piece, tmp_path)


class TestJsonLines:
    def test_a_malformed_line_is_set_aside_where_it_stands(self, tmp_path: Path) -> None:
        lines = [b'{"text": "a"}', b'{"text": ', b"[1, 2]", b'{"text": "\xff"}', b'{"text": "b"}']
        (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
        (piece,) = list_shards(source("rows.jsonl"), tmp_path)
        raw = read_shard(source("rows.jsonl"), piece, tmp_path)
        assert piece.rows == 5
        assert raw.rows == ((0, {"text": "a"}), (4, {"text": "b"}))
        assert [(bad.row, bad.excerpt) for bad in raw.malformed] == [
            (1, '{"text":'),
            (2, "[1, 2]"),
            (3, '{"text": "\N{REPLACEMENT CHARACTER}"}'),
        ]
        assert [bad.reason for bad in raw.malformed] == [
            "malformed JSON: Expecting value at character 10",
            "a JSON object was expected, not list",
            "not UTF-8: invalid start byte at byte 10; save it as UTF-8",
        ]

    @pytest.mark.parametrize("line", ['{"n": ' + "1" * 5_000 + "}", "[" * 100_000])
    def test_a_line_that_no_parser_takes_is_set_aside(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "rows.jsonl").write_text(f'{line}\n{{"text": "b"}}\n')
        (piece,) = list_shards(source("rows.jsonl"), tmp_path)
        raw = read_shard(source("rows.jsonl"), piece, tmp_path)
        assert raw.rows == ((1, {"text": "b"}),)
        assert raw.malformed[0].reason.startswith("malformed JSON: ")
        assert len(raw.malformed[0].excerpt) == 200

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
    def test_blank_lines_carriage_returns_and_a_byte_order_mark_are_no_rows(self, tmp_path: Path, name: str) -> None:
        data = b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b\xe2\x80\xa8c"}\n\n{"text": "d"}'
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        assert contents(source(name, rows_per_shard=2), tmp_path) == {
            "s-00000": [{"text": "a"}, {"text": "b\u2028c"}],
            "s-00001": [{"text": "d"}],
        }

    def test_columns_are_those_of_any_row(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b", "topic": "x"}])
        (piece,) = list_shards(source("rows.jsonl"), tmp_path)
        assert read_shard(source("rows.jsonl"), piece, tmp_path).columns == ("text", "topic")


class TestNames:
    def test_files_of_a_directory_carry_their_relative_path_and_slice(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "data" / "b.parquet", texts(0, 11))
        write_parquet(tmp_path / "data" / "lang=en" / "part 0.v1.parquet", texts(0, 1))
        assert names(list_shards(source("data"), tmp_path)) == [
            "s-b-00000",
            "s-b-00001",
            "s-lang_en_part_0.v1-00000",
        ]

    def test_files_of_a_glob_carry_the_path_below_its_fixed_part(self, tmp_path: Path) -> None:
        for language in ("de", "en"):
            write_jsonl(tmp_path / "data" / language / "train.jsonl.gz", texts(0, 1))
            write_jsonl(tmp_path / "data" / language / "test.jsonl.gz", texts(0, 1))
        assert names(list_shards(source("data/*/train.*"), tmp_path)) == ["s-de_train-00000", "s-en_train-00000"]

    def test_a_file_that_grows_renames_no_shard(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "data" / "a.jsonl", texts(0, 7))
        write_jsonl(tmp_path / "data" / "b.jsonl", texts(100, 7))
        before = contents(source("data"), tmp_path)
        write_jsonl(tmp_path / "data" / "a.jsonl", texts(0, 25))
        after = contents(source("data"), tmp_path)
        assert list(after) == ["s-a-00000", "s-a-00001", "s-a-00002", "s-b-00000"]
        assert after["s-b-00000"] == before["s-b-00000"]
        assert after["s-a-00000"][:7] == before["s-a-00000"]

    def test_a_new_file_renames_no_shard(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "data" / "b.parquet", texts(0, 12))
        before = contents(source("data"), tmp_path)
        write_parquet(tmp_path / "data" / "a.parquet", texts(50, 3))
        after = contents(source("data"), tmp_path)
        assert set(after) - set(before) == {"s-a-00000"}
        assert {shard: after[shard] for shard in before} == before

    def test_hidden_files_and_those_of_other_kinds_are_passed_over(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "data" / "a.jsonl", texts(0, 1))
        write_jsonl(tmp_path / "data" / ".cache" / "b.jsonl", texts(0, 1))
        write_jsonl(tmp_path / "data" / "_draft.jsonl", texts(0, 1))
        (tmp_path / "data" / "README.md").write_text("about")
        assert names(list_shards(source("data"), tmp_path)) == ["s-a-00000"]

    def test_names_keep_the_letters_of_every_script(self, tmp_path: Path) -> None:
        for name in ("日本", "中国", "हिन्दी", "Ünï", "Текст 1"):
            write_jsonl(tmp_path / "data" / f"{name}.jsonl", texts(0, 1))
        assert set(names(list_shards(source("data"), tmp_path))) == {
            "s-日本-00000",
            "s-中国-00000",
            "s-हिन्दी-00000",
            "s-Ünï-00000",
            "s-Текст_1-00000",
        }

    @pytest.mark.parametrize(
        ("plain", "others"),
        [
            ("a_b.jsonl", ["a b.jsonl", "a/b.jsonl", "a?b.jsonl"]),
            ("é.jsonl", ["e\u0301.jsonl"]),
            ("a.jsonl", ["a.JSONL", "a.Jsonl"]),
        ],
    )
    def test_files_whose_names_become_one_are_still_shards_of_their_own(
        self, tmp_path: Path, plain: str, others: list[str]
    ) -> None:
        for k, name in enumerate([plain, *others]):
            write_jsonl(tmp_path / "data" / name, texts(k, 1))
        read = contents(source("data"), tmp_path)
        stem = plain.removesuffix(".jsonl")
        assert read.pop(f"s-{stem}-00000") == texts(0, 1)
        assert sorted(row["id"] for (row,) in read.values()) == [f"r{k + 1}" for k in range(len(others))]
        assert all(re.fullmatch(rf"s-{stem}~[0-9a-f]{{8}}-00000", shard) for shard in read)

    def test_names_that_differ_in_case_alone_are_kept(self, tmp_path: Path) -> None:
        for name in ("Data.jsonl", "data.jsonl", "DATA.jsonl"):
            write_jsonl(tmp_path / "data" / name, texts(0, 1))
        assert names(list_shards(source("data"), tmp_path)) == ["s-DATA-00000", "s-Data-00000", "s-data-00000"]

    def test_one_file_has_one_name_however_a_system_writes_its_accents(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "data" / "e\u0301.jsonl", texts(0, 1))
        assert names(list_shards(source("data"), tmp_path)) == ["s-\u00e9-00000"]

    def test_a_file_and_its_compressed_copy_are_refused(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "data" / "a.jsonl", texts(0, 1))
        write_jsonl(tmp_path / "data" / "a.jsonl.gz", texts(0, 1))
        with pytest.raises(SourceError, match=r"a\.jsonl and data/a\.jsonl\.gz would both.*'s-a-"):
            list_shards(source("data"), tmp_path)

    def test_two_sources_with_one_shard_name_are_refused(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "a" / "b.jsonl", texts(0, 1))
        write_jsonl(tmp_path / "b.jsonl", texts(0, 1))
        sources = [Source(name="a", path="a"), Source(name="a-b", path="b.jsonl")]
        found = survey(sources, tmp_path)
        assert found.faults.keys() == {"a-b"}
        assert re.search(r"source 'a'.*source 'a-b'.*shard 'a-b-00000'", found.faults["a-b"])
        assert names(found.shards) == names(survey(sources[:1], tmp_path).shards) == ["a-b-00000"]

    @pytest.mark.parametrize("named", [{}, {"text": "text"}, {"id": "id"}])
    def test_a_column_that_is_named_and_would_be_taken_anyway_is_read_twice(
        self, tmp_path: Path, named: dict[str, str]
    ) -> None:
        write_jsonl(tmp_path / "a.jsonl", texts(0, 1))
        sources = [Source(name="a", path="a.jsonl"), Source(name="b", path="a.jsonl", columns=Columns(**named))]
        (note,) = survey(sources, tmp_path).notes
        assert note.startswith("a.jsonl is read 2 times")

    def test_paths_may_be_absolute(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "data" / "a.jsonl", texts(0, 1))
        elsewhere = tmp_path / "elsewhere"
        assert contents(source(str(tmp_path / "data" / "a.jsonl")), elsewhere) == {"s-00000": texts(0, 1)}
        assert names(list_shards(source(str(tmp_path / "data" / "*.jsonl")), elsewhere)) == ["s-a-00000"]


class TestFormats:
    def test_the_format_set_decides_for_a_file_with_an_unknown_name(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "rows.data", texts(0, 2))
        with pytest.raises(SourceError, match=r"cannot tell the format of .*rows\.data.*It is JSON Lines.*\"jsonl\""):
            list_shards(source("rows.data"), tmp_path)
        assert contents(source("rows.data", format="jsonl"), tmp_path) == {"s-00000": texts(0, 2)}
        assert contents(source("*.data", format="jsonl"), tmp_path) == {"s-rows-00000": texts(0, 2)}

    def test_the_format_set_names_shards_by_its_own_suffixes(self, tmp_path: Path) -> None:
        """`.json.gz` was no suffix before: shards that were read by the format set keep their names."""
        write_jsonl(tmp_path / "rows.json.gz", texts(0, 2))
        assert contents(source("*.json.gz", format="jsonl"), tmp_path) == {"s-rows.json-00000": texts(0, 2)}
        assert contents(source("*.json.gz"), tmp_path) == {"s-rows-00000": texts(0, 2)}

    def test_mixed_formats_are_refused_until_the_format_is_set(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "data" / "a.jsonl", texts(0, 1))
        write_parquet(tmp_path / "data" / "b.parquet", texts(0, 1))
        with pytest.raises(SourceError, match=r"several formats \(1 jsonl and 1 parquet\)"):
            list_shards(source("data"), tmp_path)
        assert names(list_shards(source("data", format="parquet"), tmp_path)) == ["s-b-00000"]

    @pytest.mark.parametrize(
        ("path", "settings", "message"),
        [
            ("nothing", {}, "nothing is at"),
            ("data", {}, r"no data files at data.*\.parquet, \.jsonl.*found: a\.xlsx"),
            ("data/*.arrow", {}, "found: nothing"),
            ("data", {"format": "parquet"}, r"no parquet files at data\. Found: a\.xlsx"),
            ("data/*.xlsx", {"format": "datasets"}, "no datasets files"),
            ("data", {"format": "delta"}, 'format = "delta".*lacks what such a source has'),
            ("data/a.xlsx", {"format": "delta"}, "needs a directory"),
        ],
    )
    def test_what_is_not_there_is_said_with_what_is(
        self, tmp_path: Path, path: str, settings: dict[str, Any], message: str
    ) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.xlsx").write_text("text\na\n")
        with pytest.raises(SourceError, match=message):
            list_shards(source(path, **settings), tmp_path)

    def test_a_dataset_dict_is_refused_with_its_splits_and_the_path_to_use(self, tmp_path: Path) -> None:
        rows = Dataset.from_list(texts(0, 2))
        DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "data")
        with pytest.raises(SourceError, match=r'splits test, train.*"data/test"'):
            list_shards(source("data"), tmp_path)
        assert names(list_shards(source("data/test"), tmp_path)) == ["s-00000"]

    def test_files_at_other_addresses_than_object_stores_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"https://host/a\.parquet is not a local path, nor in an object store"):
            list_shards(source("https://host/a.parquet"), tmp_path)

    def test_the_files_of_a_delta_table_are_never_read_one_by_one(self, tmp_path: Path) -> None:
        write_deltalake(tmp_path / "data" / "table", pa.Table.from_pylist(texts(0, 2)))
        for wrong in (source("data"), source("data/**/*.parquet"), source("data/table/*.parquet")):
            with pytest.raises(SourceError, match="is a Delta table"):
                list_shards(wrong, tmp_path)
        with pytest.raises(SourceError, match=r'format = "parquet", but .* is a delta source'):
            list_shards(source("data/table", format="parquet"), tmp_path)


class TestDelta:
    @pytest.fixture
    def table(self, tmp_path: Path) -> DeltaTable:
        write_deltalake(tmp_path / "table", pa.Table.from_pylist(texts(0, 40)))
        return DeltaTable(tmp_path / "table")

    @pytest.mark.usefixtures("table")
    def test_every_row_is_in_the_bucket_of_its_id(self, tmp_path: Path) -> None:
        read = contents(delta_source(), tmp_path)
        assert list(read) == ["s-00000", "s-00001", "s-00002", "s-00003"]
        assert sorted((row for rows in read.values() for row in rows), key=lambda row: int(row["id"][1:])) == texts(
            0, 40
        )
        for shard, rows in read.items():
            assert {f"s-{bucket_of(row['id'], 4):05d}" for row in rows} == {shard}

    def test_an_edit_touches_only_the_bucket_of_its_row(self, tmp_path: Path, table: DeltaTable) -> None:
        before = contents(delta_source(), tmp_path)
        table.update(predicate="id = 'r7'", updates={"text": "'edited'"})
        after = contents(delta_source(), tmp_path)
        changed = {shard for shard in before if before[shard] != after[shard]}
        assert changed == {f"s-{bucket_of('r7', 4):05d}"}

    def test_how_the_table_is_laid_out_in_files_does_not_matter(self, tmp_path: Path, table: DeltaTable) -> None:
        before = contents(delta_source(), tmp_path)
        rows = pa.Table.from_pylist(list(reversed(texts(0, 40))))
        write_deltalake(table, rows.slice(0, 9), mode="overwrite")
        write_deltalake(table, rows.slice(9), mode="append")
        assert contents(delta_source(), tmp_path) == before

    def test_rows_that_share_an_id_come_in_an_order_that_files_do_not_decide(self, tmp_path: Path) -> None:
        twice = [{"id": "r", "text": "first"}, {"id": "r", "text": "second"}]
        for name, rows in (("one", twice), ("two", twice[::-1])):
            write_deltalake(tmp_path / name, pa.Table.from_pylist(rows))
        assert contents(delta_source("one"), tmp_path) == contents(delta_source("two"), tmp_path)

    @pytest.mark.usefixtures("table")
    def test_a_slice_is_read_at_the_version_at_which_it_was_listed(self, tmp_path: Path) -> None:
        before = list_shards(delta_source(), tmp_path)
        rows = [read_shard(delta_source(), piece, tmp_path).rows for piece in before]
        write_deltalake(tmp_path / "table", pa.Table.from_pylist(texts(100, 40)), mode="append")
        assert [read_shard(delta_source(), piece, tmp_path).rows for piece in before] == rows

    @pytest.mark.usefixtures("table")
    def test_a_table_created_again_is_distinguished_from_the_old_one(self, tmp_path: Path) -> None:
        before = list_shards(delta_source(), tmp_path)
        shutil.rmtree(tmp_path / "table")
        write_deltalake(tmp_path / "table", pa.Table.from_pylist(texts(0, 1)))
        (piece,) = list_shards(delta_source(), tmp_path)
        assert (piece.rows, piece.shard) == (1, f"s-{bucket_of('r0', 4):05d}")
        with pytest.raises(SourceError, match="was created again after"):
            read_shard(delta_source(), before[0], tmp_path)

    def test_buckets_without_rows_are_no_shards(self, tmp_path: Path, table: DeltaTable) -> None:
        table.delete("id <> 'r7'")
        (piece,) = list_shards(delta_source(), tmp_path)
        assert (piece.bucket, piece.rows) == (bucket_of("r7", 4), 1)

    def test_an_empty_table_is_refused(self, tmp_path: Path, table: DeltaTable) -> None:
        table.delete()
        with pytest.raises(SourceError, match="table is empty"):
            list_shards(delta_source(), tmp_path)

    @pytest.mark.usefixtures("table")
    def test_the_id_column_is_required_and_must_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"a Delta table needs columns\.id"):
            list_shards(source("table"), tmp_path)
        with pytest.raises(SourceError, match=r"no column 'key' \(columns\.id\).*are: id, text"):
            list_shards(delta_source(columns=Columns(id="key")), tmp_path)

    def test_partition_columns_and_nested_values_are_read(self, tmp_path: Path) -> None:
        row = {"id": 1, "language": "en", "messages": [{"role": "user", "content": "hi"}]}
        write_deltalake(tmp_path / "table", pa.Table.from_pylist([row]), partition_by=["language"])
        assert list(contents(delta_source(), tmp_path).values()) == [[row]]

    @pytest.mark.usefixtures("table")
    def test_a_url_is_read_with_its_storage_options(self, tmp_path: Path) -> None:
        remote = delta_source(
            (tmp_path / "table").as_uri(), format=SourceFormat.DELTA, storage_options={"timeout": "5s"}
        )
        shards = list_shards(remote, Path("elsewhere"))
        assert sum(len(read_shard(remote, piece, Path("elsewhere")).rows) for piece in shards) == 40

    def test_a_table_that_cannot_be_opened_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="/none cannot be read as a Delta table"):
            list_shards(delta_source(f"file://{tmp_path}/none", format="delta"), tmp_path)

    def test_buckets_are_the_same_everywhere_and_for_ever(self) -> None:
        assert [bucket_of(value, 16) for value in ("r0", "r1", 7, "7", None)] == [5, 0, 2, 2, 0]

    @given(st.text() | st.integers() | st.none(), st.integers(1, 1000))
    def test_every_id_has_a_bucket(self, row_id: object, buckets: int) -> None:
        assert 0 <= bucket_of(row_id, buckets) < buckets


class TestWholeSource:
    def test_rows_of_all_shards_are_numbered_through(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.jsonl").write_text('{"text": "a"}\n{"text"\n{"text": "b"}\n')
        write_jsonl(tmp_path / "data" / "b.jsonl", [{"text": "c", "topic": "x"}])
        raw = read_source(source("data", rows_per_shard=2), tmp_path)
        assert raw.rows == ((0, {"text": "a"}), (2, {"text": "b"}), (3, {"text": "c", "topic": "x"}))
        assert [bad.row for bad in raw.malformed] == [1]
        assert raw.columns == ("text", "topic")

    def test_a_missing_column_is_refused(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "rows.parquet", texts(0, 3))
        wrong = source("rows.parquet", columns=Columns(prompt="question", completion="answer"))
        with pytest.raises(SourceError, match=r"'question' \(columns.prompt\), 'answer' \(columns.completion\)"):
            read_source(wrong, tmp_path)
