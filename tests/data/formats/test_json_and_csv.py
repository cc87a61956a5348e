"""JSON arrays, CSV tables, compressed files, and files that are not what they are called."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorif_assets.api.rows import normalised_rows
from lorif_assets.config.sources import Source
from lorif_assets.data.formats import json as json_format
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.shards import list_shards, read_shard, read_source
from lorif_assets.errors import SourceError

ROWS = [{"text": "a"}, {"text": 'b"]},{'}, {"text": "é\\\\", "tags": [{"n": 12.5}]}]


def read(base: Path, path: str, content: str | bytes, **settings: Any) -> RawShard:
    (base / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_source(Source(name="s", path=path, **settings), base)


def values(raw: RawShard) -> list[Any]:
    return [row for _, row in raw.rows]


class TestJson:
    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize("rows_per_shard", [1, 2, 10])
    @pytest.mark.parametrize("window", [1, 7, 1 << 20])
    def test_an_array_is_rows_however_it_is_cut(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, rows_per_shard: int, window: int
    ) -> None:
        monkeypatch.setattr(json_format, "_WINDOW", window)
        content = "\ufeff " + json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n"
        raw = read(tmp_path, "rows.json", content, rows_per_shard=rows_per_shard)
        assert values(raw) == ROWS
        assert raw.columns == ("text", "tags")

    def test_each_slice_is_read_by_itself(self, tmp_path: Path) -> None:
        (tmp_path / "rows.json").write_text(json.dumps([{"text": f"é{k}"} for k in range(5)], ensure_ascii=False))
        source = Source(name="s", path="rows.json", rows_per_shard=2)
        pieces = list_shards(source, tmp_path)
        assert [(piece.shard, piece.rows) for piece in pieces] == [("s-00000", 2), ("s-00001", 2), ("s-00002", 1)]
        assert values(read_shard(source, pieces[1], tmp_path)) == [{"text": "é2"}, {"text": "é3"}]

    def test_json_lines_by_the_name_of_json_are_lines(self, tmp_path: Path) -> None:
        raw = read(tmp_path, "rows.json", '{"text": "a"}\n{"text": \n{"text": "b"}\n')
        assert values(raw) == [{"text": "a"}, {"text": "b"}]
        assert [line.row for line in raw.malformed] == [1]

    def test_an_element_that_is_no_object_is_set_aside(self, tmp_path: Path) -> None:
        raw = read(tmp_path, "rows.json", '[{"text": "a"}, 123, [4], {"text": "b"}]')
        assert raw.rows == ((0, {"text": "a"}), (3, {"text": "b"}))
        assert [(bad.row, bad.reason, bad.excerpt) for bad in raw.malformed] == [
            (1, "a JSON object was expected, not int", "123"),
            (2, "a JSON object was expected, not list", "[4]"),
        ]

    @pytest.mark.parametrize("content", ["[]", "[ ]\n", "", " \n"])
    def test_an_empty_array_or_file_has_no_rows(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(SourceError, match="is empty: it has no rows"):
            read(tmp_path, "rows.json", content)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ('[{"text": "a"}, {"te', "at byte 16, Unterminated string"),
            ('[{"text": "a"}', "at byte 14, a comma or the closing bracket"),
            ('[{"text": "a"} {"text": "b"}]', "at byte 15, a comma or the closing bracket"),
            ('[{"text": "a"},]', "at byte 15, Expecting value"),
            ('[{"text": "a"}] x', "at byte 16, nothing was expected"),
            ('"text"', "at its beginning, an array of objects"),
            ('{"data": [{"text": "a"}]}', r"one JSON object, not rows.*\\('data'\\)|that of 'data'"),
            ('{\n "text": "a"\n}', "one JSON object, not rows"),
        ],
    )
    def test_what_is_no_array_of_rows_is_refused(self, tmp_path: Path, content: str, reason: str) -> None:
        with pytest.raises(SourceError, match=reason):
            read(tmp_path, "rows.json", content)

    @pytest.mark.parametrize("content", [json.dumps(ROWS), json.dumps(ROWS, indent=2), "[\n" + '{"text": "a"}\n]'])
    @pytest.mark.parametrize("settings", [{}, {"format": "jsonl"}])
    def test_an_array_as_json_lines_is_refused_as_what_it_is(
        self, tmp_path: Path, content: str, settings: dict[str, Any]
    ) -> None:
        with pytest.raises(SourceError, match=r"rows\.jsonl is a JSON array, not JSON Lines.*rows\.json"):
            read(tmp_path, "rows.jsonl", content, **settings)

    def test_a_line_that_is_a_list_is_set_aside_even_if_it_is_the_first(self, tmp_path: Path) -> None:
        raw = read(tmp_path, "rows.jsonl", '[1]\n{"text": "a"}\n')
        assert raw.rows == ((1, {"text": "a"}),)


class TestCsv:
    def test_every_value_is_text_as_it_stands(self, tmp_path: Path) -> None:
        content = '\ufeffid,text,note\r\n007,"a, ""b""\r\nc",\r\n\r\n1e3,true,é\r\n'
        assert values(read(tmp_path, "rows.csv", content, rows_per_shard=1)) == [
            {"id": "007", "text": 'a, "b"\r\nc', "note": ""},
            {"id": "1e3", "text": "true", "note": "é"},
        ]

    def test_tabs_are_between_the_values_of_tsv(self, tmp_path: Path) -> None:
        assert values(read(tmp_path, "rows.tsv", "id\ttext\n1\ta,b\n")) == [{"id": "1", "text": "a,b"}]

    def test_a_row_with_another_number_of_values_is_set_aside(self, tmp_path: Path) -> None:
        raw = read(tmp_path, "rows.csv", "id,text\n1,a,b\n2,c\n3\n")
        assert raw.rows == ((1, {"id": "2", "text": "c"}),)
        assert [(bad.row, bad.reason, bad.excerpt) for bad in raw.malformed] == [
            (0, "3 values, where the header has 2", "1,a,b"),
            (2, "1 values, where the header has 2", "3"),
        ]

    def test_a_value_may_be_long(self, tmp_path: Path) -> None:
        assert values(read(tmp_path, "rows.csv", "text\n" + "a" * 200_000)) == [{"text": "a" * 200_000}]

    def test_a_quote_that_is_never_closed_is_refused_with_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(
            SourceError, match=r"rows\.csv cannot be read as CSV: unexpected end of data, .*begins at byte 7"
        ):
            read(tmp_path, "rows.csv", 'text\na\n"b\nc\n')


class TestRepeatedNames:
    LINES = (
        '{"text": "a", "n": 1}',
        '{"text": "b", "n": {"k": 1, "k": 2}}',
        '{"text": "c", "text": "d"}',
        '{"text": "e"}',
    )

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
    def test_an_object_with_a_repeated_key_is_set_aside(self, tmp_path: Path, name: str) -> None:
        content = "\n".join(self.LINES) if name == "rows.jsonl" else "[" + ",".join(self.LINES) + "]"
        raw = read(tmp_path, name, content, rows_per_shard=3)
        assert raw.rows == ((0, {"text": "a", "n": 1}), (3, {"text": "e"}))
        assert [(bad.row, bad.reason, bad.excerpt) for bad in raw.malformed] == [
            (1, "the key 'k' is there 2 times in one object: keep one of them", self.LINES[1]),
            (2, "the key 'text' is there 2 times in one object: keep one of them", self.LINES[2]),
        ]

    def test_a_table_with_two_columns_of_one_name_is_refused(self, tmp_path: Path) -> None:
        table = pa.table([["a"], ["b"], ["c"]], names=["text", "id", "text"])
        pq.write_table(table, tmp_path / "rows.parquet")
        (tmp_path / "rows.csv").write_text("text,id,text\na,b,c\n")
        for name in ("rows.parquet", "rows.csv"):
            with pytest.raises(
                SourceError, match=rf"{name} has columns .* of one name \(2 times 'text'\).*Rename them"
            ):
                list_shards(Source(name="s", path=name), tmp_path)
        with pytest.raises(SourceError, match=r"the table of examples has columns .*2 times 'text'"):
            normalised_rows(table, None, "examples")

    def test_so_is_one_with_two_fields_of_one_name_in_a_struct(self, tmp_path: Path) -> None:
        message = pa.StructArray.from_arrays([pa.array(["user"]), pa.array(["model"])], names=["role", "role"])
        turns = pa.ListArray.from_arrays([0, 1], message)
        pq.write_table(pa.table({"messages": turns}), tmp_path / "rows.parquet")
        with pytest.raises(SourceError, match=r"rows\.parquet, column 'messages', has .*2 times 'role'"):
            list_shards(Source(name="s", path="rows.parquet"), tmp_path)


class TestContents:
    def test_what_a_file_holds_may_be_compressed_whatever_its_name_is(self, tmp_path: Path) -> None:
        assert values(read(tmp_path, "rows.jsonl", gzip.compress(b'{"text": "a"}\n'))) == [{"text": "a"}]

    def test_a_compressed_file_that_breaks_off_is_refused(self, tmp_path: Path) -> None:
        content = pa.compress(b'{"text": "a"}\n' * 9, codec="zstd", asbytes=True)[:-3]
        with pytest.raises(SourceError, match=r"rows\.jsonl\.zst cannot be read: .*[Cc]heck that the file is complete"):
            read(tmp_path, "rows.jsonl.zst", content)

    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
    def test_a_parquet_file_by_another_name_is_refused_as_one(self, tmp_path: Path, name: str) -> None:
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / name)
        with pytest.raises(SourceError, match=r'is a Parquet file: .*set format = "parquet"'):
            list_shards(Source(name="s", path=name), tmp_path)
        assert values(read_source(Source(name="s", path=name, format="parquet"), tmp_path)) == [{"text": "a"}]

    @pytest.mark.parametrize(
        ("content", "advice"),
        [
            (b'[{"text": "a"}]', 'set format = "json"'),
            (b'{"text": "a"}\n', 'set format = "jsonl"'),
            (b'{\n "text": "a"}\n', "one JSON object .*save its rows"),
            (b"id,text\n", 'set format = "csv"'),
            (b"PK\x03\x04...", "unpack it, or save the sheet as CSV"),
            (b"BZh9...", "bzip2: decompress it"),
            (b"", "is empty"),
            (b"a\0b", "save its rows as Parquet or JSON Lines"),
        ],
    )
    @pytest.mark.parametrize("path", ["data", "data/rows.dat"])
    def test_a_name_that_says_nothing_is_answered_by_what_the_file_is(
        self, tmp_path: Path, content: bytes, advice: str, path: str
    ) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "rows.dat").write_bytes(content)
        with pytest.raises(SourceError, match=advice):
            list_shards(Source(name="s", path=path), tmp_path)

    def test_parquet_that_is_something_else_is_named_as_that(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"rows\.parquet cannot be read as a Parquet file.*It is JSON Lines"):
            read(tmp_path, "rows.parquet", '{"text": "a"}\n')

    @pytest.mark.parametrize("other", ["dataset_info.json", "statistics.csv", "README.txt"])
    def test_json_csv_and_text_give_way_to_parquet_and_json_lines(self, tmp_path: Path, other: str) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / other).write_text("{}")
        assert values(read(tmp_path, "data/a.jsonl", '{"text": "a"}\n')) == [{"text": "a"}]
        assert [piece.shard for piece in list_shards(Source(name="s", path="data"), tmp_path)] == ["s-a-00000"]

    def test_which_of_json_csv_and_text_is_the_data_is_asked(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "README.txt").write_text("about")
        (tmp_path / "data" / "a.csv").write_text("text\na\n")
        with pytest.raises(SourceError, match=r"several formats \(1 csv and 1 txt\)"):
            list_shards(Source(name="s", path="data"), tmp_path)
        assert values(read_source(Source(name="s", path="data", format="csv"), tmp_path)) == [{"text": "a"}]
