"""Ids of rows as text: whatever type they have, and whichever format they come from."""

import math
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.examples import normalise
from lorif_assets.data.formats.delta_buckets import BucketedTable
from lorif_assets.data.formats.delta_changes import Changes, changes
from lorif_assets.data.rows.row_ids import text_of_id
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.data.shards import list_shards, read_shard

COLUMNS = {
    "decimal": (pa.array([Decimal("12.50"), Decimal("7.00")], pa.decimal128(10, 2)), ["12.5", "7"]),
    "binary text": (pa.array([b"doc-7", "été".encode()]), ["doc-7", "été"]),
    "binary": (pa.array([b"\x00\xff", b"\x80"], pa.binary()), ["0x00ff", "0x80"]),
    "fixed binary": (pa.array([bytes(range(16))], pa.binary(16)), ["0x000102030405060708090a0b0c0d0e0f"]),
    "float64": (pa.array([7.0, 0.1]), ["7", "0.1"]),
    "date": (pa.array([date(2026, 11, 26)]), ["2026-11-26"]),
    "timestamp": (pa.array([datetime(2026, 11, 26, 1, 2, 3)]), ["2026-11-26T01:02:03"]),
}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.00"), "0"),
        (Decimal("12345678901234567890123456789012345678"), "12345678901234567890123456789012345678"),
        (1e16, "1e+16"),
        (-0.0, "0"),
        (b"0xff", "0x30786666"),
        (b"a\x00", "0x6100"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_the_text_of_an_id(value: object, text: str) -> None:
    assert text_of_id(value, "id") == text


@pytest.mark.parametrize("value", [None, "", b"", True, math.nan, math.inf, Decimal("NaN"), [1], {"a": 1}])
def test_what_tells_no_rows_apart_is_no_id(value: object) -> None:
    with pytest.raises(UnusableRowError, match=r"^id \(column 'key'\) is .*, not text or a number$"):
        text_of_id(value, "key")


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_two_ids_of_bytes_never_become_one(one: bytes, other: bytes) -> None:
    assert (text_of_id(one, "id") == text_of_id(other, "id")) == (one == other)


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 5))
def test_a_decimal_has_one_id_at_every_scale(value: Decimal, zeros: int) -> None:
    scaled = Decimal(format(value, "f") + ("" if "." in format(value, "f") else ".") + "0" * zeros)
    assert text_of_id(scaled, "id") == text_of_id(value, "id")
    assert Decimal(text_of_id(value, "id")) == value


def stored(kind: str, table: pa.Table, folder: Path) -> Source:
    settings: dict[str, Any] = {"columns": Columns(id="id"), "buckets": 1}
    match kind:
        case "parquet":
            pq.write_table(table, folder / "rows.parquet")
            return Source(name="s", path="rows.parquet", **settings)
        case "datasets":
            Dataset(table).save_to_disk(folder / "rows")
        case _:
            write_deltalake(folder / "rows", table)
    return Source(name="s", path="rows", **settings)


@pytest.mark.parametrize("kind", ["parquet", "datasets", "delta"])
@pytest.mark.parametrize("name", COLUMNS)
def test_every_format_gives_one_type_the_same_ids(name: str, kind: str, tmp_path: Path) -> None:
    column, expected = COLUMNS[name]
    source = stored(kind, pa.table({"id": column, "text": ["a"] * len(column)}), tmp_path)
    (piece,) = list_shards(source, tmp_path)
    read = normalise(read_shard(source, piece, tmp_path), source.columns, piece.shard)
    assert sorted(read.examples["example_id"].to_pylist()) == sorted(expected)


@pytest.mark.parametrize("feed", [{"delta.enableChangeDataFeed": "true"}, {}], ids=["with a feed", "without a feed"])
@pytest.mark.parametrize("name", COLUMNS)
def test_an_edit_of_a_delta_table_is_followed_whatever_the_type_of_its_ids(
    name: str, feed: dict[str, str], tmp_path: Path
) -> None:
    column, ids = COLUMNS[name]
    texts = [f"text {k}" for k in range(len(column))]
    write_deltalake(tmp_path / "table", pa.table({"id": column, "text": texts}), configuration=feed)
    table = BucketedTable.of(str(tmp_path / "table"), "id", 64, {})
    before = table.version()
    DeltaTable(tmp_path / "table").update(predicate="text = 'text 0'", updates={"text": "'edited'"})
    # As for the same id as text.
    bucket = table.bucket_of(ids[0])
    assert changes(table, before, table.version()) == Changes({bucket: 0})
    assert [row["text"] for row in table.rows(table.version(), bucket)] == ["edited"]
