"""`lorif verify` names every bit that a disk flipped, in whichever file, and what is materialized next mends it."""

from pathlib import Path

import pytest

from lorif_assets.lake.attribution_tables import (
    CHECKPOINT_COMPARISONS,
    GRADIENT_FACTORS,
    QUERY_SCORES,
)
from lorif_assets.lake.damage import notes
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.verification import Verification, files_to_verify, verify
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject, private_copy
from tests.damaged_files import chosen_files, flip_bits, kind

DIFFERENT = ("page",)
PARTITION = {"checkpoint": CHECKPOINTS[0], "query_set": QUERY_SET}


def verified(lake: Lake) -> Verification:
    return verify(lake, files_to_verify(lake))


def named(lake: Lake) -> set[str]:
    return {damage.file for damage in verified(lake).damage}


def data_file(project: TinyProject, table: str, *parts: str) -> str:
    (path,) = (
        path
        for path in files_to_verify(project.lake)
        if path.startswith(f"{table}/") and path.endswith(".parquet") and all(part in path for part in parts)
    )
    return path


def test_a_lake_as_it_was_written_is_sound_and_every_file_of_it_has_a_checksum(tiny_project: TinyProject) -> None:
    found = verified(tiny_project.lake)
    assert found.damage == []
    assert found.unchecked == 0
    assert found.n_files == len(files_to_verify(tiny_project.lake))


@pytest.mark.parametrize("seed", range(2))
def test_thirty_flipped_bits_are_all_named_and_mended(tiny_project: TinyProject, tmp_path: Path, seed: int) -> None:
    with private_copy(tiny_project, tmp_path) as project:
        flipped = chosen_files(project.lake, 30, seed)
        assert {kind(path) for path in flipped} >= {
            "log",
            "checksums of log",
            "checksums of data",
            "curvature_states",
            "reports",
            "format.json",
            "gradient_factors",
        }
        flip_bits(project.lake, flipped, seed)
        assert set(flipped) <= named(project.lake)
        project.update()
        found = verified(project.lake)
        assert [str(damage) for damage in found.damage if not damage.remedy] == []
        assert notes(project.lake.stored) == []
        for schema in (QUERY_SCORES, GRADIENT_FACTORS, CHECKPOINT_COMPARISONS):
            keys = [
                name for name in schema.columns.names if name.endswith(("id", "rank", "side", "shard", "checkpoint"))
            ]
            both = [one.table(schema).sort(keys).drop(DIFFERENT, strict=False) for one in (project, tiny_project)]
            assert both[0].equals(both[1])
