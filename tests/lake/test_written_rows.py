"""Rows that one process has written and another one commits: the same file, the same rows, and nothing before the commit."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from polars.testing import assert_frame_equal

from lorif_assets.errors import TableError
from lorif_assets.lake import lake_tables
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.seals import LOG, State, look_at_data_file, seal_path
from lorif_assets.lake.table_writing import drop
from lorif_assets.lake.written_rows import WrittenRows, commit_rows

PARTITION = {"checkpoint": "step%1 a", "shard": "s é"}


def factors(layer: str, n: int, partition: dict[str, str] = PARTITION) -> pa.Table:
    constants = {field.name: "c" for field in GRADIENT_FACTORS.columns if pa.types.is_string(field.type)}
    columns = {name: [value] * n for name, value in (constants | partition).items()}
    columns["example_id"] = [f"e{row}" for row in range(n)]
    numbers = {"row": pa.int64(), "loss": pa.float32(), "n_target_tokens": pa.int32()}
    return pa.table(
        {
            **columns,
            **{name: pa.array(range(n), kind) for name, kind in numbers.items()},
            "truncated": [False] * n,
            layer: pa.array([bytes([row % 256]) * 8 for row in range(n)], pa.large_binary()),
        }
    )


def everything(lake: Lake) -> pl.DataFrame:
    table = lake.table(GRADIENT_FACTORS)
    assert table is not None
    names = sorted(field.name for field in table.schema().fields)
    return lake.read(GRADIENT_FACTORS, names).sort("checkpoint", "shard", "row")


@pytest.fixture
def lakes(tmp_path: Path) -> tuple[Lake, Lake]:
    return Lake(str(tmp_path / "ahead")), Lake(str(tmp_path / "at once"))


def test_rows_are_read_once_they_are_committed_and_are_those_of_a_commit_at_once(lakes: tuple[Lake, Lake]) -> None:
    ahead, at_once = lakes
    written = ahead.write_ahead(GRADIENT_FACTORS, PARTITION, factors("l", 300))
    assert ahead.read(GRADIENT_FACTORS).is_empty()
    ahead.replace(GRADIENT_FACTORS, PARTITION, written)
    at_once.replace(GRADIENT_FACTORS, PARTITION, factors("l", 300))
    assert_frame_equal(everything(ahead), everything(at_once))
    (one,), (other,) = (lake.factor_files(PARTITION["checkpoint"]) for lake in lakes)
    assert (one.shard, one.rows) == (other.shard, other.rows)
    assert [len(batch) for _, batch in ahead.stream_factors([one], ["l"], 100)] == [100, 100, 100]


def test_a_partition_is_replaced_and_no_other(lakes: tuple[Lake, Lake]) -> None:
    ahead, at_once = lakes
    other = {**PARTITION, "shard": "another"}
    for lake in lakes:
        lake.replace(GRADIENT_FACTORS, other, factors("l", 5, other))
        lake.replace(GRADIENT_FACTORS, PARTITION, factors("l", 4))
    ahead.replace(GRADIENT_FACTORS, PARTITION, ahead.write_ahead(GRADIENT_FACTORS, PARTITION, factors("l", 2)))
    at_once.replace(GRADIENT_FACTORS, PARTITION, factors("l", 2))
    assert_frame_equal(everything(ahead), everything(at_once))
    assert ahead.read(GRADIENT_FACTORS, shard="another").height == 5


def test_layers_of_another_model_become_columns_beside_those_that_are_there(lakes: tuple[Lake, Lake]) -> None:
    ahead, at_once = lakes
    other = {**PARTITION, "checkpoint": "other model"}
    for lake in lakes:
        lake.replace(GRADIENT_FACTORS, PARTITION, factors("l", 3))
    ahead.replace(GRADIENT_FACTORS, other, ahead.write_ahead(GRADIENT_FACTORS, other, factors("m", 3, other)))
    at_once.replace(GRADIENT_FACTORS, other, factors("m", 3, other))
    assert_frame_equal(everything(ahead), everything(at_once))
    # And once more without new ones.
    ahead.replace(GRADIENT_FACTORS, other, ahead.write_ahead(GRADIENT_FACTORS, other, factors("m", 2, other)))
    assert ahead.read(GRADIENT_FACTORS, ["row", "l", "m"], checkpoint="other model")["l"].null_count() == 2


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "there already"])
@pytest.mark.parametrize("other_is_ahead", [False, True], ids=["beside rows at once", "beside rows ahead"])
def test_of_two_processes_that_commit_one_partition_at_the_same_time_the_last_one_wins(
    lakes: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch, *, is_there: bool, other_is_ahead: bool
) -> None:
    lake, _ = lakes
    lake.replace(GRADIENT_FACTORS, {**PARTITION, "shard": "b"}, factors("l", 1, {**PARTITION, "shard": "b"}))
    if is_there:
        lake.replace(GRADIENT_FACTORS, PARTITION, factors("l", 7))
    others: list[pa.Table | WrittenRows] = [factors("l", 4)]
    if other_is_ahead:
        others = [lake.write_ahead(GRADIENT_FACTORS, PARTITION, factors("l", 4))]

    def commit_after_the_other(table: DeltaTable, written: WrittenRows) -> None:
        if others:
            # Between this process's look at the table and its commit.
            Lake(lake.root).replace(GRADIENT_FACTORS, PARTITION, others.pop())
        commit_rows(table, written)

    monkeypatch.setattr(lake_tables, "commit_rows", commit_after_the_other)
    lake.replace(GRADIENT_FACTORS, PARTITION, lake.write_ahead(GRADIENT_FACTORS, PARTITION, factors("l", 3)))
    assert lake.read(GRADIENT_FACTORS, shard=PARTITION["shard"]).height == 3
    assert len(lake.factor_files(PARTITION["checkpoint"])) == 2


def test_rows_whose_commit_was_not_answered_are_there_once(
    lakes: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _ = lakes
    unanswered = [True]

    def commit(table: DeltaTable, written: WrittenRows) -> None:
        commit_rows(table, written)
        if unanswered:
            unanswered.clear()
            raise CommitFailedError("a store that was asked again says that there is such a version")

    monkeypatch.setattr(lake_tables, "commit_rows", commit)
    lake.replace(GRADIENT_FACTORS, PARTITION, lake.write_ahead(GRADIENT_FACTORS, PARTITION, factors("l", 3)))
    assert lake.read(GRADIENT_FACTORS)["row"].sort().to_list() == [0, 1, 2]
    table = lake.table(GRADIENT_FACTORS)
    assert table is not None
    assert table.version() == 1, "a second commit would remove the file that it adds"
    assert lake.stored.has(seal_path(f"{GRADIENT_FACTORS.name}/{LOG}/{1:020}.json")), "the log's copy"


def test_a_removal_that_was_not_answered_is_sealed_like_any_other(
    lakes: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _ = lakes
    lake.replace(GRADIENT_FACTORS, PARTITION, factors("l", 3))
    unanswered = [True]

    def removed(table: DeltaTable, values: dict[str, list[str]]) -> None:
        drop(table, values)
        if unanswered:
            unanswered.clear()
            raise CommitFailedError("a store that was asked again says that there is such a version")

    monkeypatch.setattr(lake_tables, "drop", removed)
    lake.remove(GRADIENT_FACTORS, shard=[PARTITION["shard"]])
    table = lake.table(GRADIENT_FACTORS)
    assert table is not None
    assert table.version() == 2
    assert lake.stored.has(seal_path(f"{GRADIENT_FACTORS.name}/{LOG}/{2:020}.json")), "the log's copy"


def test_the_file_has_the_checksums_of_its_writer(lakes: tuple[Lake, Lake]) -> None:
    lake, _ = lakes
    written = lake.write_ahead(GRADIENT_FACTORS, PARTITION, factors("l", 3))
    lake.replace(GRADIENT_FACTORS, PARTITION, written)
    path = f"{GRADIENT_FACTORS.name}/{written.path}"
    assert look_at_data_file(lake.stored, path) is State.SOUND
    file = Path(lake.root, path)
    damaged = bytearray(file.read_bytes())
    damaged[20] ^= 1
    file.write_bytes(damaged)
    assert look_at_data_file(lake.stored, path) is State.DAMAGED


def test_rows_of_another_partition_are_refused_before_anything_is_written(lakes: tuple[Lake, Lake]) -> None:
    lake, _ = lakes
    with pytest.raises(TableError, match="contain shard"):
        lake.write_ahead(GRADIENT_FACTORS, {**PARTITION, "shard": "b"}, factors("l", 3))
    assert not Path(lake.root, GRADIENT_FACTORS.name).exists()
