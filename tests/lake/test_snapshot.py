"""A snapshot shows a lake as one look found it."""

from pathlib import Path

import pyarrow as pa
import pytest

from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.snapshot import LakeSnapshot


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


def store(lake: Lake, part: str) -> None:
    row = {"stage": "s", "part": part, "example_id": part, "row": 0, "reason": "empty", "excerpt": ""}
    lake.replace(REJECTED, {"stage": "s", "part": part}, pa.Table.from_pylist([row], REJECTED.columns))


def parts(lake: Lake) -> set[str]:
    return set(lake.read(REJECTED, ["part"])["part"])


def test_a_table_stays_as_it_was_when_first_asked_for(lake: Lake) -> None:
    store(lake, "a")
    snapshot = LakeSnapshot.of(lake)
    assert parts(snapshot) == {"a"}
    store(lake, "b")
    assert parts(snapshot) == {"a"}
    assert parts(lake) == parts(LakeSnapshot.of(lake)) == {"a", "b"}


def test_a_table_that_was_not_there_stays_away(lake: Lake) -> None:
    snapshot = LakeSnapshot.of(lake)
    assert parts(snapshot) == set()
    store(lake, "a")
    assert parts(snapshot) == set()
    assert parts(LakeSnapshot.of(lake)) == {"a"}


def test_a_table_is_opened_when_it_is_first_asked_for(lake: Lake) -> None:
    snapshot = LakeSnapshot.of(lake)
    store(lake, "a")
    assert parts(snapshot) == {"a"}


def test_nothing_is_written_through_a_snapshot(lake: Lake) -> None:
    with pytest.raises(TypeError, match=r"write the 1 rows of rejected with .* by the lake itself"):
        store(LakeSnapshot.of(lake), "a")
    assert parts(lake) == set()
    store(lake, "a")
    with pytest.raises(TypeError, match="remove partitions of rejected by part from the lake itself"):
        LakeSnapshot.of(lake).remove(REJECTED, part=["a"])
    assert parts(lake) == {"a"}
