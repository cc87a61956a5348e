"""A small lake of each format is read for ever. `project_8417265`, of format 1, has tests of its own."""

from pathlib import Path

import pytest
import torch

from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, KFAC_BASES, REPORTS
from lorif_assets.lake.format_version import FORMAT, stored_format
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.verification import files_to_verify, verify
from tests.archives import FIXTURES, unpack
from tests.lake.test_lake import LAYER, counts, replace_rejected, streamed


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake as format 2 was first written: two versions of a partition, factors with sums, bases and a page."""
    unpack("lake_format_2.tar.xz", tmp_path)
    return Lake(root=str(tmp_path / "lake"))


def test_every_format_has_a_lake_to_be_read() -> None:
    assert {int(file.name.split("_")[2].split(".")[0]) for file in FIXTURES.glob("lake_format_*")} == {
        *range(2, FORMAT + 1)
    }


def test_a_lake_of_format_2_is_read_and_all_of_it_is_checked(lake: Lake) -> None:
    assert stored_format(lake.stored) == 2
    found = verify(lake, files_to_verify(lake))
    assert (found.damage, found.unchecked) == ([], 0)
    assert counts(lake) == {"a": 2, "it's": 1}
    assert streamed(lake, "one", LAYER, 2) == [("docs-0", bytes([i]) * 8) for i in range(5)]
    (folder,) = lake.read(GRADIENT_FACTORS, ["fisher"])["fisher"].unique()
    assert lake.read_tensors(f"{folder}/{LAYER}.safetensors")["squares"].tolist() == [[0, 1], [2, 3]]
    (uri,) = lake.read(KFAC_BASES)["uri"]
    assert torch.equal(lake.read_tensors(uri)["q_in"], torch.eye(3))
    assert lake.read(REPORTS)["page"].to_list()[0].endswith("  reports/one/q.html")


def test_a_lake_of_format_2_is_carried_on(lake: Lake) -> None:
    replace_rejected(lake, "b", 2)
    assert counts(lake) == {"a": 2, "it's": 1, "b": 2}
    assert verify(lake, files_to_verify(lake)).damage == []
