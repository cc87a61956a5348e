"""A lake that remembers what it read."""

import shutil

import polars as pl
import pyarrow as pa
import pytest

from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.remembered_rows import RememberingLake
from lorif_assets.lake.snapshot import LakeSnapshot


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path))


@pytest.fixture
def reads(monkeypatch):
    """How often tables were read."""
    counted, read = [], LakeSnapshot.read

    def count(self, schema, columns=None, **filters):
        counted.append(schema.name)
        return read(self, schema, columns, **filters)

    monkeypatch.setattr(LakeSnapshot, "read", count)
    return counted


def write(lake, name, step):
    rows = pa.Table.from_pylist([{"checkpoint": name, "step": step}], schema=CHECKPOINTS.columns)
    lake.replace(CHECKPOINTS, {"checkpoint": name}, rows)


def test_the_same_rows_are_read_once_and_others_are_others(lake, reads):
    write(lake, "a", 1)
    write(lake, "b", 2)
    remembering = RememberingLake.of(lake)
    for _ in range(3):
        assert remembering.read(CHECKPOINTS, ["step"], checkpoint="a").to_series().to_list() == [1]
        assert sorted(remembering.read(CHECKPOINTS, ["step"]).to_series()) == [1, 2]
    assert len(reads) == 2


def test_what_was_written_since_is_seen_at_the_next_look(lake):
    write(lake, "a", 1)
    remembering = RememberingLake(lake.root, look_every=0.0)
    assert remembering.read(CHECKPOINTS)["step"].to_list() == [1]
    write(lake, "a", 5)
    assert remembering.read(CHECKPOINTS)["step"].to_list() == [5]


def test_a_lake_that_was_deleted_and_made_again_is_another(lake):
    write(lake, "a", 1)
    remembering = RememberingLake(lake.root, look_every=0.0)
    before = remembering.read(CHECKPOINTS)["step"].to_list(), remembering.version(CHECKPOINTS)
    shutil.rmtree(lake.root)
    assert remembering.read(CHECKPOINTS).is_empty()
    write(lake, "a", 5)
    assert (remembering.read(CHECKPOINTS)["step"].to_list(), before[0]) == ([5], [1])
    assert remembering.version(CHECKPOINTS) != before[1]


def test_a_table_that_comes_later_is_seen(lake):
    remembering = RememberingLake(lake.root, look_every=0.0)
    assert remembering.read(CHECKPOINTS).is_empty()
    write(lake, "a", 1)
    assert remembering.read(CHECKPOINTS).filter(pl.col("checkpoint") == "a").height == 1


def test_beyond_the_budget_rows_are_read_again(lake, reads):
    write(lake, "a", 1)
    remembering = RememberingLake(lake.root, budget_bytes=0)
    remembering.read(CHECKPOINTS)
    remembering.read(CHECKPOINTS)
    assert len(reads) == 2
