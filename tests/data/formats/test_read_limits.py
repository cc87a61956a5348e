"""Files of rows that hold, or claim to hold, more than there may be: refused by name, or set aside row by row."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from lorif_assets.config.limits import GIB, MIB, ReadLimits
from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.formats import limits as limits_of_formats
from lorif_assets.data.formats.limits import bounded_lines
from lorif_assets.data.formats.reader import RawShard, version_of
from lorif_assets.data.shards import list_shards, read_source, survey
from lorif_assets.errors import SourceError
from tests.data.hostile_parquet import write_claim, write_deep_schema

LONG = "a" * (MIB + 1)


def source(path: str, **limits: int) -> Source:
    return Source(name="s", path=path, limits=ReadLimits(**limits))


def read(base: Path, path: str, content: str | bytes, **limits: int) -> RawShard:
    (base / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_source(source(path, **limits), base)


def texts(raw: RawShard) -> list[Any]:
    return [row["text"] for _, row in raw.rows]


class TestLongRows:
    @pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst"])
    def test_a_line_of_json_that_is_too_long_is_set_aside_and_the_others_are_read(
        self, tmp_path: Path, name: str
    ) -> None:
        content = "".join(json.dumps({"text": text}) + "\n" for text in ("b", LONG, "c")).encode()
        if name.endswith(".gz"):
            content = gzip.compress(content)
        if name.endswith(".zst"):
            content = pa.compress(content, codec="zstd", asbytes=True)
        raw = read(tmp_path, name, content, row_mib=1)
        assert raw.rows == ((0, {"text": "b"}), (2, {"text": "c"}))
        (row,) = raw.malformed
        assert (row.row, row.reason) == (1, "longer than the 1 MiB that `limits.row_mib` allows")
        assert row.excerpt.startswith('{"text": "aaa')

    def test_one_of_many_megabytes_is_never_held(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        held: list[int] = []

        def spied(*arguments: Any) -> Any:
            for line, length in bounded_lines(*arguments):
                held.append(len(line))
                yield line, length

        monkeypatch.setattr("lorif_assets.data.formats.jsonl.bounded_lines", spied)
        file = tmp_path / "rows.jsonl"
        file.write_bytes(b'{"text": "a"}\n')
        with file.open("ab") as more:
            more.truncate(1 << 28)
        with file.open("ab") as more:
            more.write(b'\n{"text": "b"}\n')
        assert texts(read_source(source("rows.jsonl", row_mib=1), tmp_path)) == ["a", "b"]
        assert max(held) == MIB + 1

    def test_slices_after_a_long_line_begin_where_their_rows_do(self, tmp_path: Path) -> None:
        lines = [json.dumps({"text": text}) for text in ("a", LONG, "b", "c")]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines))
        cut = source("rows.jsonl", row_mib=1).model_copy(update={"rows_per_shard": 1})
        assert [piece.rows for piece in list_shards(cut, tmp_path)] == [1, 1, 1, 1]
        assert texts(read_source(cut, tmp_path)) == ["a", "b", "c"]

    def test_a_row_of_csv_or_of_an_array_that_is_too_long_is_named_with_its_place(self, tmp_path: Path) -> None:
        array = json.dumps([{"text": "a"}, {"text": LONG}])
        with pytest.raises(
            SourceError, match=r"rows\.json has a longer row, .* byte 16, and `limits\.row_mib` = 1 allows"
        ):
            read(tmp_path, "rows.json", array, row_mib=1)
        for row in (LONG, f'"{LONG}"', '"' + "a\n" * MIB):
            with pytest.raises(SourceError, match=r"rows\.csv has a longer row, .* byte 7, and `limits\.row_mib` = 1"):
                read(tmp_path, "rows.csv", f"text\nb\n{row}\n", row_mib=1)
        assert texts(read(tmp_path, "rows.json", array, row_mib=2)) == ["a", LONG]

    def test_a_number_of_more_digits_than_python_takes_is_set_aside(self, tmp_path: Path) -> None:
        rows = '{"text": "a"}', '{"text": "b", "n": %s}' % ("9" * 5_000), '{"text": "c"}'
        for name, content in (("rows.jsonl", "\n".join(rows)), ("rows.json", f"[{','.join(rows)}]")):
            raw = read(tmp_path, name, content)
            assert texts(raw) == ["a", "c"]
            assert [row.row for row in raw.malformed] == [1]
            assert "digits" in raw.malformed[0].reason


class TestManyRows:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("rows.jsonl", '{"text": "a"}\n' * 3),
            ("rows.json", '[{"text": "a"}, {"text": "a"}, {"text": "a"}]'),
            ("rows.csv", "text\na\na\na\n"),
        ],
    )
    def test_a_file_of_more_rows_than_there_may_be_is_refused(self, tmp_path: Path, name: str, content: str) -> None:
        assert len(read(tmp_path, name, content, rows=3).rows) == 3
        with pytest.raises(SourceError, match=rf"{name} has, .* 3 rows, and `limits\.rows` = 2 allows no more"):
            read(tmp_path, name, content, rows=2)

    @pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "txt"])
    def test_a_shard_that_would_fill_the_memory_is_refused(self, tmp_path: Path, kind: str) -> None:
        values = [LONG] * 3
        file = tmp_path / f"rows.{kind}"
        match kind:
            case "jsonl":
                file.write_text("\n".join(json.dumps({"text": text}) for text in values))
            case "json":
                file.write_text(json.dumps([{"text": text} for text in values]))
            case "csv":
                file.write_text("\n".join(["text", *values]))
            case "parquet":
                pq.write_table(pa.table({"text": values}), file)
            case "txt":
                file.write_text("\n\n".join(values))
        cut = source(file.name, shard_mib=2).model_copy(update={"passages": "paragraph"})
        with pytest.raises(SourceError, match=rf"{file.name} has a shard .*`rows_per_shard`.*`limits\.shard_mib` = 2"):
            read_source(cut, tmp_path)
        assert len(read_source(cut.model_copy(update={"rows_per_shard": 1}), tmp_path).rows) == 3

    def test_a_table_of_more_columns_than_there_may_be_is_refused(self, tmp_path: Path) -> None:
        names = [f"c{k}" for k in range(20)]
        pq.write_table(pa.table({name: ["a"] for name in names}), tmp_path / "rows.parquet")
        (tmp_path / "rows.csv").write_text(",".join(names) + "\n")
        for name in ("rows.parquet", "rows.csv"):
            with pytest.raises(SourceError, match=rf"{name} has .*columns.*`limits\.columns` = 10 allows no more"):
                list_shards(source(name, columns=10), tmp_path)


class TestCompressedFiles:
    @pytest.fixture
    def _small_allowance(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits_of_formats, "GIB", 1_000)

    @pytest.mark.parametrize("suffix", ["gz", "zst"])
    @pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
    @pytest.mark.usefixtures("_small_allowance")
    def test_one_that_expands_without_end_is_refused_while_it_is_read(
        self, tmp_path: Path, kind: str, suffix: str
    ) -> None:
        content = b'{"text": "a"}\n' * 10_000 if kind == "jsonl" else b" " * 140_000
        content = gzip.compress(content) if suffix == "gz" else pa.compress(content, codec="zstd", asbytes=True)
        match = (
            rf"rows\.{kind}\.{suffix} holds more than [\d,]+ bytes in {len(content):,} compressed ones, "
            r"and `limits\.expansion` = 10"
        )
        with pytest.raises(SourceError, match=match):
            read(tmp_path, f"rows.{kind}.{suffix}", content, expansion=10)

    @pytest.mark.usefixtures("_small_allowance")
    def test_so_is_one_that_is_too_large_altogether(self, tmp_path: Path) -> None:
        content = gzip.compress(b'{"text": "a"}\n' * 100)
        with pytest.raises(SourceError, match=r"holds more than 1,000 bytes .*`limits\.expanded_gib` = 1 allows"):
            read(tmp_path, "rows.jsonl.gz", content, expanded_gib=1, expansion=1_000)

    def test_the_first_gibibyte_is_nobodys_bomb(self) -> None:
        assert limits_of_formats.largest_content(100, ReadLimits()) == (GIB, "expansion")


class TestParquet:
    @pytest.mark.parametrize("rows", [2**40, 4])
    def test_rows_that_are_claimed_and_not_there_are_seen(self, tmp_path: Path, rows: int) -> None:
        write_claim(tmp_path / "rows.parquet", rows)
        reason = r"claims to have, 1,099,511,627,776 rows.*`limits\.rows`" if rows > 4 else "cannot be read"
        with pytest.raises(SourceError, match=rf"rows\.parquet.*{reason}"):
            read_source(source("rows.parquet"), tmp_path)

    def test_a_footer_that_contradicts_itself_is_refused(self, tmp_path: Path) -> None:
        write_claim(file := tmp_path / "rows.parquet", 4)
        content = file.read_bytes()
        file.write_bytes(content.replace(b"\x16\x08", b"\x16\x0a", 1))
        with pytest.raises(SourceError, match=r"rows\.parquet has a footer that contradicts itself: .*[45] rows"):
            list_shards(source("rows.parquet"), tmp_path)

    @pytest.mark.parametrize("depth", [200, 5_000, 200_000])
    def test_columns_nested_so_deep_that_arrow_ends_the_process_are_refused(self, tmp_path: Path, depth: int) -> None:
        write_deep_schema(tmp_path / "rows.parquet", depth)
        with pytest.raises(SourceError, match=r"rows\.parquet has (columns nested more than 100 deep|more columns)"):
            list_shards(source("rows.parquet"), tmp_path)

    def test_a_footer_that_is_too_large_is_refused_before_it_is_read(self, tmp_path: Path) -> None:
        with (tmp_path / "rows.parquet").open("wb") as file:
            file.truncate(1 << 30)
            file.seek(0, 2)
            file.write(struct.pack("<I", (1 << 30) - 4) + b"PAR1")
        with pytest.raises(SourceError, match=r"footer of 1,073,741,820 bytes, and `limits\.header_mib` = 256"):
            list_shards(source("rows.parquet"), tmp_path)

    def test_a_row_group_that_expands_without_end_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pq.write_table(pa.table({"n": [0] * 100_000, "text": ["a"] * 100_000}), tmp_path / "rows.parquet")
        assert list_shards(source("rows.parquet", expansion=1), tmp_path)
        monkeypatch.setattr("lorif_assets.data.formats.parquet_claims.GIB", 1_000)
        with pytest.raises(
            SourceError, match=r"row group of 1,200,000 bytes in [\d,]+ stored ones, .*`limits.expansion`"
        ):
            list_shards(source("rows.parquet", expansion=2), tmp_path)

    def test_a_large_text_of_a_dictionary_is_decoded_a_few_rows_at_a_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pq.write_table(pa.table({"text": [LONG] * 60}), tmp_path / "rows.parquet", dictionary_pagesize_limit=1 << 30)
        sizes: list[int] = []
        original = pq.ParquetFile.iter_batches

        def spied(file: pq.ParquetFile, batch_size: int, **arguments: Any) -> Any:
            sizes.append(batch_size)
            return original(file, batch_size=batch_size, **arguments)

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
        with pytest.raises(SourceError, match=r"`limits\.shard_mib` = 8 allows"):
            read_source(source("rows.parquet", shard_mib=8), tmp_path)
        assert sizes == [7]


class TestDatasets:
    def test_offsets_that_point_outside_are_refused_before_objects_are_made_from_them(self, tmp_path: Path) -> None:
        from datasets import Dataset

        Dataset.from_dict({"text": ["abc", "def"]}).save_to_disk(str(tmp_path / "saved"))
        (file,) = (tmp_path / "saved").glob("*.arrow")
        offsets = struct.pack("<3i", 0, 3, 6)
        content = file.read_bytes()
        assert content.count(offsets) == 1
        file.write_bytes(content.replace(offsets, struct.pack("<3i", 0, 1 << 30, 6)))
        with pytest.raises(SourceError, match="saved cannot be read as a saved `datasets` directory"):
            read_source(source("saved"), tmp_path)

    def test_a_description_that_is_too_large_is_refused(self, tmp_path: Path) -> None:
        from datasets import Dataset

        Dataset.from_dict({"text": ["abc"]}).save_to_disk(str(tmp_path / "saved"))
        with (tmp_path / "saved/state.json").open("ab") as state:
            state.write(b" " * MIB)
        with pytest.raises(SourceError, match=r"state\.json has [\d,]+ bytes, and `limits\.header_mib` = 1"):
            list_shards(source("saved", header_mib=1), tmp_path)


def test_the_rows_of_a_delta_table_are_counted_too(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "rows"), pa.table({"id": ["1", "2", "3"], "text": ["a", "b", "c"]}))
    for limits, reason in (
        ({"rows": 2}, r"3 rows, .*`limits\.rows` = 2"),
        ({"columns": 1}, r"2 columns, .*`limits\.columns`"),
    ):
        table = source("rows", **limits).model_copy(update={"columns": Columns(id="id")})
        with pytest.raises(SourceError, match=reason):
            list_shards(table, tmp_path)


def test_a_file_beyond_its_limits_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_text('{"text": "a"}\n' * 3)
    (tmp_path / "data/b.jsonl").write_text('{"text": "b"}\n')
    found = survey([source("data", rows=2)], tmp_path)
    assert [(piece.shard, bool(piece.fault)) for piece in found.shards] == [("s-a-00000", True), ("s-b-00000", False)]


def test_usual_limits_leave_stored_shards_up_to_date_and_others_read_them_again() -> None:
    usual = Source(name="s", path="rows.jsonl")
    assert "limits" not in usual.model_dump()
    assert version_of("1", usual) == version_of("1", source("rows.jsonl"))
    assert version_of("1", usual) != version_of("1", source("rows.jsonl", row_mib=65))
