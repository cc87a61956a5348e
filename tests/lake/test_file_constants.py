"""What a table's log tells of its files is what their rows say, and where the log cannot tell, the rows are asked."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from lorif_assets.lake.data_tables import REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.file_constants import file_constants, logged_rows
from lorif_assets.lake.lake import Lake

COLUMNS = ["part", "reason", "excerpt"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


def write(lake: Lake, part: str, reasons: list[str], excerpts: list[str | None]) -> None:
    n = len(reasons)
    rows = {
        "stage": ["s"] * n,
        "part": [part] * n,
        "example_id": [f"{part}/{row}" for row in range(n)],
        "row": pa.array(range(n), pa.int64()),
        "reason": reasons,
        "place": pa.nulls(n, pa.string()),
        "excerpt": pa.array(excerpts, pa.string()),
    }
    lake.replace(REJECTED, {"stage": "s", "part": part}, pa.table(rows))


def test_the_rows_of_each_partition_are_counted_without_a_look_into_its_files(tmp_path: Path) -> None:
    lake = Lake(root=str(tmp_path / "lake"))
    assert logged_rows(lake, TRAINING_EXAMPLES) == {}
    for shard, number in {"a b": 3, "c": 1}.items():
        rows = pa.Table.from_pylist([{"shard": shard, "row": row} for row in range(number)], TRAINING_EXAMPLES.columns)
        lake.replace(TRAINING_EXAMPLES, {"shard": shard}, rows)
    for file in (tmp_path / "lake/training_examples").rglob("*.parquet"):
        file.unlink()
    assert logged_rows(lake, TRAINING_EXAMPLES) == {"a b": 3, "c": 1}


def as_set(frame: pl.DataFrame) -> set[tuple[str | None, ...]]:
    assert frame.columns == COLUMNS
    assert frame.height == len(set(frame.iter_rows()))
    return set(frame.iter_rows())


@pytest.mark.parametrize("length", [1, 32, 64, 65, 511, 512, 513, 1_000])
def test_the_rows_are_the_distinct_ones_of_the_table(lake: Lake, length: int) -> None:
    write(lake, "constant", ["r" * length] * 3, ["", "", ""])
    write(lake, "longer at the end", ["r" * length, "r" * length + "z"], ["e"] * 2)
    write(lake, "two values", ["a", "b"], ["e", "e"])
    write(lake, "some nulls", ["a", "a"], ["e", None])
    write(lake, "nulls", ["a"], [None])
    write(lake, "it's quoted", ["ü\N{WOMAN}" * length] * 2, ["e"] * 2)
    assert as_set(file_constants(lake, REJECTED, COLUMNS)) == as_set(lake.read(REJECTED, COLUMNS).unique())


def test_rows_are_chosen_by_partition(lake: Lake) -> None:
    write(lake, "one", ["a"], ["e"])
    write(lake, "two", ["b", "c"], ["e", "e"])
    assert as_set(file_constants(lake, REJECTED, COLUMNS, part="one")) == {("one", "a", "e")}
    assert as_set(file_constants(lake, REJECTED, COLUMNS, part="two")) == {("two", "b", "e"), ("two", "c", "e")}
    assert file_constants(lake, REJECTED, COLUMNS, part="none").is_empty()


def test_a_replaced_partition_has_its_new_values_only(lake: Lake) -> None:
    write(lake, "one", ["a"], ["e"])
    write(lake, "one", ["b"], ["e"])
    assert as_set(file_constants(lake, REJECTED, COLUMNS)) == {("one", "b", "e")}


def test_no_rows_come_from_a_table_that_is_not_there(lake: Lake) -> None:
    frame = file_constants(lake, REJECTED, COLUMNS)
    assert frame.is_empty()
    assert frame.columns == COLUMNS


@pytest.mark.parametrize("length", [1, 72, 400])
def test_constant_columns_are_known_without_the_data_files(lake: Lake, length: int) -> None:
    write(lake, "one", ["a" * length] * 2, ["e", "e"])
    for file in Path(lake.uri(REJECTED)).rglob("*.parquet"):
        file.unlink()
    assert as_set(file_constants(lake, REJECTED, COLUMNS)) == {("one", "a" * length, "e")}


def test_partition_columns_alone_are_told_too(lake: Lake) -> None:
    write(lake, "one", ["a", "b"], ["e", "e"])
    write(lake, "two", ["a"], ["e"])
    assert set(file_constants(lake, REJECTED, ["part"])["part"]) == {"one", "two"}
