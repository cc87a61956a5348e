"""What is kept of the lake in memory: read once while it fits, and never of a file that is no longer current."""

import pyarrow as pa
import pytest
import torch

from lorif_assets.lake.kept_reads import KeptReads


def block(first, n):
    return pa.record_batch(
        {"layer": pa.array([bytes([at] * 100) for at in range(first, first + n)], pa.large_binary())}
    )


@pytest.fixture
def read():
    """A file of ten rows in two blocks, which counts how often it is read."""

    def blocks():
        blocks.count += 1
        yield block(0, 6)
        yield block(6, 4)

    blocks.count = 0
    return blocks


def values(kept, read, path="a", rows=100):
    return [value for part in kept.columns(path, ["layer"], rows, read) for value in part.column(0).to_pylist()]


def test_a_file_is_read_once_and_yielded_in_blocks_of_any_size(read):
    kept = KeptReads(1 << 20)
    first = values(kept, read)
    for rows in (1, 4, 7, 100):
        assert values(kept, read, rows=rows) == first
        assert all(len(part) <= rows for part in kept.columns("a", ["layer"], rows, read))
    assert read.count == 1


@pytest.mark.parametrize("budget", [0, 500, 900])
def test_what_does_not_fit_into_the_budget_is_read_again_each_time(read, budget):
    kept = KeptReads(budget)
    assert values(kept, read) == values(kept, read)
    assert read.count == 2
    assert kept.kept_bytes == 0


def test_the_first_files_stay_where_the_budget_does_not_hold_all(read):
    kept = KeptReads(1_500)
    for _ in range(3):
        values(kept, read, "a")
        values(kept, read, "b")
    assert read.count == 1 + 3
    assert 0 < kept.kept_bytes <= 1_500


def test_a_file_that_is_no_longer_current_is_let_go_of_and_makes_room(read):
    kept = KeptReads(1_500)
    values(kept, read, "a")
    kept.retain({"b"})
    assert kept.kept_bytes == 0
    values(kept, read, "b")
    values(kept, read, "b")
    assert read.count == 2


def test_a_reader_that_stops_early_leaves_nothing_half_kept(read):
    kept = KeptReads(1 << 20)
    next(kept.columns("a", ["layer"], 100, read))
    assert kept.kept_bytes == 0
    assert len(values(kept, read)) == 10


def test_columns_of_a_file_are_kept_one_by_one(read):
    kept = KeptReads(1 << 20)
    values(kept, read)

    def both():
        yield pa.record_batch({"layer": block(0, 10).column(0), "id": pa.array([str(at) for at in range(10)])})

    (rows,) = kept.columns("a", ["layer", "id"], 100, both)
    assert rows.column(1).to_pylist()[-1] == "9"
    (again,) = kept.columns("a", ["id"], 100, both)
    assert len(again) == 10


def test_tensors_are_read_once_until_everything_is_let_go_of():
    kept, loads = KeptReads(1 << 20), []

    def load():
        loads.append(1)
        return {"diagonal": torch.ones(3)}

    assert torch.equal(kept.tensors("a", load)["diagonal"], kept.tensors("a", load)["diagonal"])
    assert len(loads) == 1
    kept.clear()
    kept.tensors("a", load)
    assert len(loads) == 2
