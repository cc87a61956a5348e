"""Shards of mosaicml-streaming: rows with the types that they describe, and whatever is not whole refused in a sentence."""

import bz2
import gzip
import json
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import Columns, Source, TokenType
from lorif_assets.data.examples import NormalisedShard, sort_out
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.shards import list_shards, passed_over_notice, read_shard, survey
from lorif_assets.data.source_rows import source_rows
from lorif_assets.errors import SourceError
from lorif_assets.freshness.surroundings import look_around
from tests.token_stores import array, mds_shard


def source(rows_per_shard: int = 2, token_type: TokenType | None = None, **columns: Any) -> Source:
    return Source(
        name="mds", path="data", rows_per_shard=rows_per_shard, token_type=token_type, columns=Columns(**columns)
    )


def stored(base: Path, content: bytes, name: str = "shard.00000.mds") -> Path:
    (base / "data" / name).parent.mkdir(parents=True, exist_ok=True)
    (base / "data" / name).write_bytes(content)
    return base / "data" / name


def raw_shards(of: Source, base: Path) -> list[RawShard]:
    return [read_shard(of, piece, base) for piece in list_shards(of, base)]


def read(of: Source, base: Path) -> list[Mapping[str, Any]]:
    return [values for raw in raw_shards(of, base) for _, values in raw.rows]


def examples(of: Source, base: Path) -> NormalisedShard:
    (piece,) = list_shards(of, base)
    return sort_out(read_shard(of, piece, base), of.columns, piece.shard)


def _by_arrow(codec: str) -> Callable[[bytes], bytes]:
    return lambda content: pa.compress(content, codec, asbytes=True)


TOKENS = [np.array(ids, np.uint16) for ids in ([5, 6, 7], [8], [60_000, 2])]
TOKENS_SHARD = mds_shard({"tokens": "ndarray:uint16"}, [[array(ids, "uint16")] for ids in TOKENS])


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("shard.00000.mds", bytes),
        ("shard.00000.mds.gz", gzip.compress),
        ("shard.00000.mds.zstd", lambda content: pa.compress(content, "zstd", asbytes=True)),
        ("shard.00000.mds.br", lambda content: pa.compress(content, "brotli", asbytes=True)),
        ("shard.00000.mds.bz2", bz2.compress),
        ("shard.00000.mds.snappy", lambda content: pa.compress(content, "snappy", asbytes=True)),
    ],
)
def test_rows_are_read_slice_by_slice_compressed_or_not(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    stored(tmp_path, compress(TOKENS_SHARD), name)
    for rows_per_shard in (1, 2, 3):
        of = source(rows_per_shard, input_ids="tokens")
        assert [row["tokens"] for row in read(of, tmp_path)] == [ids.tolist() for ids in TOKENS]


def test_a_number_of_rows_that_begins_as_gzip_does_is_one(tmp_path: Path) -> None:
    n_rows = int.from_bytes(b"\x1f\x8b", "little")
    stored(tmp_path, mds_shard({"text": "str"}, [[b"a"]] * n_rows))
    (piece,) = list_shards(source(n_rows), tmp_path)
    assert (piece.fault, piece.rows) == ("", n_rows)
    assert len(read_shard(source(n_rows), piece, tmp_path).rows) == n_rows


def test_an_array_without_numbers_is_an_empty_list_however_large_its_other_sizes(tmp_path: Path) -> None:
    empty = [bytes([2 << 2 | 2]) + np.array(shape, "<u4").tobytes() for shape in ((0, 3), (2**32 - 1, 0))]
    stored(tmp_path, mds_shard({"tokens": "ndarray:uint16"}, [[value] for value in empty]))
    assert read(source(), tmp_path) == [{"tokens": []}, {"tokens": []}]


@pytest.mark.parametrize("suffix", ["br", "bz2", "snappy"])
def test_what_is_compressed_and_not_whole_is_refused(tmp_path: Path, suffix: str) -> None:
    compress = bz2.compress if suffix == "bz2" else _by_arrow({"br": "brotli"}.get(suffix, suffix))
    for content in (b"x" * 99, compress(TOKENS_SHARD)[:-20], b""):
        stored(tmp_path, content, f"shard.00000.mds.{suffix}")
        with pytest.raises(SourceError, match=r"cannot be read as MDS: .* Write it again, or remove it"):
            read(source(), tmp_path)


@pytest.mark.parametrize("suffix", ["br", "bz2", "snappy"])
def test_what_is_compressed_and_holds_more_than_it_may_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress = bz2.compress if suffix == "bz2" else _by_arrow({"br": "brotli"}.get(suffix, suffix))
    large = mds_shard({"text": "str"}, [[bytes(1 << 21)], [bytes(1 << 21)]])
    stored(tmp_path, compress(large), f"shard.00000.mds.{suffix}")
    of = Source(name="mds", path="data", limits=ReadLimits(expansion=1))
    assert len(read(of, tmp_path)) == 2
    # As if a gigabyte were a megabyte.
    monkeypatch.setattr("lorif_assets.data.formats.limits.GIB", 1 << 20)
    with pytest.raises(SourceError, match=r"bytes in [\d,]+ compressed ones"):
        read(of, tmp_path)


@pytest.mark.parametrize("suffix", ["gz", "zstd"])
def test_a_shard_beside_its_compressed_copy_is_read_once(tmp_path: Path, suffix: str) -> None:
    stored(tmp_path, TOKENS_SHARD)
    stored(
        tmp_path,
        gzip.compress(TOKENS_SHARD) if suffix == "gz" else _by_arrow("zstd")(TOKENS_SHARD),
        f"shard.00000.mds.{suffix}",
    )
    stored(tmp_path, gzip.compress(TOKENS_SHARD), "shard.00001.mds.gz")
    found = list_shards(source(3), tmp_path)
    assert [Path(piece.uri).name for piece in found] == ["shard.00000.mds", "shard.00001.mds.gz"]


@pytest.mark.parametrize("name", ["s.mds", "train/s.mds", "s.MDS"])
def test_a_compressed_copy_beside_a_shard_renames_none_of_its_examples(tmp_path: Path, name: str) -> None:
    stored(tmp_path, TOKENS_SHARD, name)
    before = [piece.shard for piece in list_shards(source(3), tmp_path)]
    stored(tmp_path, gzip.compress(TOKENS_SHARD), f"{name.lower()}.gz")
    assert [piece.shard for piece in list_shards(source(3), tmp_path)] == before


def test_every_encoding_has_the_values_that_were_written(tmp_path: Path) -> None:
    values = {
        "a": ("ndarray", array(np.array([1, 2], np.int64)), [1, 2]),
        "b": ("ndarray:int32:2", array(np.array([1, 2], np.int32), "int32", shape=True), [1, 2]),
        "c": ("ndarray:float32", array(np.array([[1.5], [2.5]], np.float32), "float32"), [[1.5], [2.5]]),
        "d": ("str", "é".encode(), "é"),
        "e": ("json", b'{"a": 1}', '{"a": 1}'),
        "f": ("bytes", b"\0\xff", b"\0\xff"),
        "g": ("int", struct.pack("<q", -3), -3),
        "h": ("uint16", struct.pack("<H", 9), 9),
        "i": ("float64", struct.pack("<d", 0.25), 0.25),
        "j": ("str_decimal", b"1.50", "1.50"),
    }
    sizes = {"b": 8, "g": 8, "h": 2, "i": 8}
    row = [value for _, value, _ in values.values()]
    stored(tmp_path, mds_shard({name: kind for name, (kind, _, _) in values.items()}, [row, row], sizes))
    assert read(source(), tmp_path) == [{name: value for name, (_, _, value) in values.items()}] * 2


def test_what_is_pickled_stays_bytes(tmp_path: Path) -> None:
    stored(tmp_path, mds_shard({"text": "str", "p": "pkl"}, [[b"words", pickle.dumps(Exception)]]))
    ((row,), rejected) = examples(source(), tmp_path).examples.to_pylist(), examples(source(), tmp_path).rejected
    assert (row["text"], rejected.num_rows) == ("words", 0)
    assert json.loads(row["metadata"])["p"].endswith("bytes>")


@pytest.mark.parametrize("token_type", ["uint16", "uint32", "int32", "int64"])
def test_tokens_that_are_bytes_are_read_as_the_settings_say(tmp_path: Path, token_type: TokenType) -> None:
    stored(tmp_path, mds_shard({"tokens": "bytes"}, [[ids.astype(token_type).tobytes()] for ids in TOKENS]))
    found = examples(source(3, token_type, input_ids="tokens"), tmp_path).examples
    assert found["input_ids"].to_pylist() == [ids.tolist() for ids in TOKENS]


def test_the_type_of_tokens_that_are_bytes_is_never_guessed(tmp_path: Path) -> None:
    stored(tmp_path, mds_shard({"tokens": "bytes"}, [[b"\1\0\2\0"], [b"\1\0\2"]]))
    reasons = examples(source(input_ids="tokens"), tmp_path).rejected["reason"].to_pylist()
    assert reasons == ["input_ids is bytes: set `token_type` of the source to the type of the numbers in them"] * 2
    found = examples(source(2, "uint16", input_ids="tokens"), tmp_path)
    assert found.rejected["reason"].to_pylist() == ["tokens has 3 bytes, which are no whole number of uint16"]
    assert found.examples["input_ids"].to_pylist() == [[1, 2]]


def test_text_that_is_not_utf_8_sets_its_row_alone_aside(tmp_path: Path) -> None:
    stored(tmp_path, mds_shard({"text": "str"}, [[b"one"], [b"\xff"]]))
    found = examples(source(), tmp_path)
    assert found.examples["text"].to_pylist() == ["one"]
    assert "not UTF-8" in found.rejected["reason"][0].as_py()


def test_packed_rows_and_selections_of_them_work_as_in_parquet(tmp_path: Path) -> None:
    row = [np.arange(5, dtype="<i8").tobytes(), array(np.array([0, 1, 0, 1, 2], np.int32), "int32"), b"web"]
    stored(tmp_path, mds_shard({"tokens": "bytes", "position_ids": "ndarray:int32", "set": "str"}, [row]))
    of = source(2, "int64", input_ids="tokens")
    found = examples(of, tmp_path)
    assert found.examples["input_ids"].to_pylist() == [[0, 1], [2, 3, 4]]
    (piece,) = list_shards(of, tmp_path)
    rows = source_rows(of, piece, tmp_path, found.shard_hash, [1])
    assert rows.table().to_pylist() == [{"tokens": np.array([2, 3, 4], "<i8").tobytes(), "set": "web"}]


def test_a_selection_of_whole_rows_keeps_their_types(tmp_path: Path) -> None:
    stored(tmp_path, TOKENS_SHARD)
    of = source(3, input_ids="tokens")
    (piece,) = list_shards(of, tmp_path)
    table = source_rows(of, piece, tmp_path, examples(of, tmp_path).shard_hash, [0, 2]).table()
    assert table["tokens"].to_pylist() == [[5, 6, 7], [60_000, 2]]
    assert table.schema.field("tokens").type.value_type == pa.uint16()


@pytest.mark.parametrize("n_shards", [1, 2])
def test_a_folder_of_shards_is_found_with_its_columns_and_its_index_is_no_data(tmp_path: Path, n_shards: int) -> None:
    for k in range(n_shards):
        stored(tmp_path, TOKENS_SHARD, f"shard.0000{k}.mds")
    (tmp_path / "data/index.json").write_text('{"version": 2, "shards": []}')
    (one,) = look_around(tmp_path).sources
    assert (one.source.path, one.source.columns.input_ids, one.is_readable) == ("data", "tokens", True)
    shards = [piece.shard for piece in list_shards(source(5), tmp_path)]
    assert shards == [f"mds-shard.0000{k}-00000" for k in range(n_shards)]
    assert passed_over_notice(source(), tmp_path) is None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 65_535), max_size=6), st.text(max_size=6), st.integers(-(2**63), 2**63 - 1)),
        min_size=1,
        max_size=6,
    )
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[list[int], str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("mds")
    encoded = [
        [array(np.array(ids, np.uint16), "uint16"), text.encode(errors="replace"), struct.pack("<q", number)]
        for ids, text, number in rows
    ]
    stored(folder, mds_shard({"ids": "ndarray:uint16", "text": "str", "n": "int"}, encoded, {"n": 8}))
    found = [(row["ids"], row["text"], row["n"]) for row in read(source(), folder)]
    assert found == [(ids, text.encode(errors="replace").decode(), number) for ids, text, number in rows]


def described(**changed: Any) -> bytes:
    """A shard whose description says something else."""
    begin = TOKENS_SHARD.index(b"{")
    config, end = json.JSONDecoder().raw_decode(TOKENS_SHARD[begin:].decode("latin-1"))
    text = json.dumps({**config, **changed}).encode()
    offsets = (np.frombuffer(TOKENS_SHARD[4:begin], "<u4").astype(int) + len(text) - end).astype("<u4")
    return TOKENS_SHARD[:4] + offsets.tobytes() + text + TOKENS_SHARD[begin + end :]


def at(position: int, value: int) -> bytes:
    return TOKENS_SHARD[:position] + struct.pack("<I", value) + TOKENS_SHARD[position + 4 :]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it ends after 0 of 4 bytes"),
        (at(0, 2**32 - 1), "4,294,967,295 rows"),
        (at(0, 900_000_000), "it ends after"),
        (at(8, 1), "its rows do not lie one behind the other"),
        (at(4, 2**31), "its rows do not lie one behind the other"),
        (TOKENS_SHARD[:-1], "and its rows end at byte"),
        (TOKENS_SHARD + b"x", "and its rows end at byte"),
        (described(version=1), "it does not say that it is MDS of version 2"),
        (described(format="xsv"), "it does not say that it is MDS of version 2"),
        (described(column_names=None), "its column_names are no list of str"),
        (described(column_sizes=["8"]), "its column_sizes are no list of numbers"),
        (described(column_names=[], column_encodings=[], column_sizes=[]), "it has other numbers of columns"),
        (described(column_sizes=[None, 8]), "it has other numbers of columns"),
        (described(column_sizes=[-8]), "it has columns of negative sizes"),
        (described(column_names=["a", "a"], column_encodings=["str"] * 2, column_sizes=[None] * 2), "2 times 'a'"),
    ],
)
def test_a_file_that_is_not_whole_or_claims_what_is_not_there_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    stored(tmp_path, content)
    with pytest.raises(SourceError, match=why):
        list_shards(source(), tmp_path)


@pytest.mark.parametrize(
    ("encoding", "value", "why"),
    [
        ("ndarray", b"", "an array does not say of what numbers it is"),
        ("ndarray", b"\xfe\4\1\0", "an array does not say of what numbers it is"),
        ("ndarray:uint16", b"", "an array does not say its shape"),
        ("ndarray:uint16", b"\x08", "an array does not say its shape"),
        ("ndarray:uint16", b"\4\2\1\0", r"an array of the shape \(2,\) has 1 numbers"),
        ("ndarray:uint16", b"\4\1\1", "cannot be read as MDS"),
        ("ndarray:uint16:3", b"\1\0", r"an array of the shape \(3,\) has 1 numbers"),
        ("ndarray:uint16:x", b"\1\0", "cannot be read as MDS"),
        ("ndarray:object", b"\1\0", "arrays of 'object' are none of numbers"),
        ("int", b"\1\0", "values of other sizes than int"),
    ],
)
def test_values_that_are_not_of_their_encoding_refuse_the_slice(
    tmp_path: Path, encoding: str, value: bytes, why: str
) -> None:
    stored(tmp_path, mds_shard({"tokens": encoding}, [[value]]))
    (piece,) = list_shards(source(), tmp_path)
    with pytest.raises(SourceError, match=why):
        read_shard(source(), piece, tmp_path)


def test_values_that_are_larger_than_their_row_refuse_the_slice(tmp_path: Path) -> None:
    content = mds_shard({"text": "str"}, [[b"words"]])
    stored(tmp_path, content.replace(struct.pack("<I", 5) + b"words", struct.pack("<I", 2**32 - 1) + b"words"))
    (piece,) = list_shards(source(), tmp_path)
    with pytest.raises(SourceError, match="row 0 has 9 bytes, and its columns take 4,294,967,299"):
        read_shard(source(), piece, tmp_path)


def test_a_compressed_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(TOKENS_SHARD)
    for size in range(0, len(whole) - 8, 7):
        stored(tmp_path, whole[:size], "shard.00000.mds.gz")
        for piece in survey([source()], tmp_path).shards:
            if not piece.fault:
                with pytest.raises(SourceError, match="cannot be read"):
                    [read_shard(source(), one, tmp_path) for one in survey([source()], tmp_path).shards]


def test_rows_that_take_more_memory_than_a_shard_may_are_refused(tmp_path: Path) -> None:
    stored(tmp_path, mds_shard({"text": "str"}, [[b"x" * (1 << 20)]] * 2))
    of = source().model_copy(update={"limits": ReadLimits(shard_mib=1)})
    (piece,) = list_shards(of, tmp_path)
    with pytest.raises(SourceError, match=r"limits.shard_mib"):
        read_shard(of, piece, tmp_path)
