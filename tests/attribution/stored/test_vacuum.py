"""Vacuuming deletes what nothing points to any more and nothing else, whenever it is cut off."""

import os
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.fs as pafs
import pytest
import torch

from lorif_assets.attribution.stored.vacuum import SupersededFile, delete, superseded_files
from lorif_assets.automation.jobs import vacuum as vacuum_job
from lorif_assets.errors import TableError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.tables import TABLES
from tests.attribution.fitting.test_fit_curvature import FactorLake, lake_of
from tests.conftest import CHECKPOINTS, TinyProject, private_copy
from tests.killed_writers import killed_while_writing
from tests.lake.test_written_rows import PARTITION, factors

LONG = 24 * 365


def grow_old(lake: Lake, hours: float = LONG * 2) -> None:
    """Let every file, and what the tables' logs say of when files left, be of long ago."""
    then = time.time() - 3_600 * hours
    # A log that is written anew on purpose is not to be put back as it was.
    for copy in Path(lake.root, "checksums").rglob("*.json.xxh3"):
        copy.unlink()
    for file in Path(lake.root).rglob("*"):
        if file.suffix == ".json":
            file.write_text(_aged(file.read_text(), then))
        if file.is_file():
            os.utime(file, (then, then))


def _aged(log: str, then: float) -> str:
    import json

    lines = [json.loads(line) for line in log.splitlines()]
    for line in lines:
        if "remove" in line:
            line["remove"]["deletionTimestamp"] = int(then * 1_000)
    return "\n".join(map(json.dumps, lines))


def paths(found: list[SupersededFile]) -> set[str]:
    return {file.path for file in found}


def files(lake: Lake) -> set[str]:
    root = Path(lake.root)
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.suffix in {".parquet", ".safetensors"}}


def edited(path: Path) -> FactorLake:
    """A lake whose factors were edited after its state was brought up to date, twice."""
    lake = lake_of(path)
    lake.renew()
    lake.write("s1", lake.random_rows(20))
    lake.renew()
    lake.write("s2", lake.random_rows(20))
    lake.write("s2", lake.random_rows(20))
    return lake


def test_superseded_tensors_and_factors_go_and_what_the_ledger_names_stays(tmp_path: Path) -> None:
    lake = edited(tmp_path)
    grow_old(lake.lake)
    found = superseded_files(lake.lake, LONG)
    folders = sorted(path.split("/")[0] for path in paths(found))
    # The first state; the file of s1 that was subtracted; of s2 the file between: the ledger still names the first.
    assert folders == ["curvature_states", "gradient_factors", "gradient_factors", "svd_preconditioners"]
    delete(lake.lake, found)
    assert superseded_files(lake.lake, LONG) == []
    assert lake.renew().history == "updated: 0 shards are new, 0 gone, 1 changed"


def test_a_dry_run_deletes_nothing(tmp_path: Path) -> None:
    lake = edited(tmp_path)
    grow_old(lake.lake)
    before = files(lake.lake)
    found = superseded_files(lake.lake, LONG)
    assert found
    assert all(file.size > 0 for file in found)
    assert files(lake.lake) == before


def test_what_was_superseded_within_the_retention_period_stays_however_old_it_is(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    lake.renew()
    grow_old(lake.lake)
    lake.write("s1", lake.random_rows(20))
    lake.write("s1", lake.random_rows(20))
    (state,) = (path for path in files(lake.lake) if path.endswith(".safetensors"))
    assert superseded_files(lake.lake, LONG) == []
    lake.renew()
    assert paths(superseded_files(lake.lake, LONG)) <= {state}


def test_files_that_a_crash_left_without_a_commit_go_after_the_retention_period(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    lake.renew()
    orphan = lake.lake.write_tensors("curvature_states/step-1", {"basis": torch.zeros(2)})
    half_written = Path(lake.lake.root, "gradient_factors/checkpoint=step-1/shard=s0/part-9.parquet")
    half_written.write_bytes(b"PAR1")
    assert superseded_files(lake.lake, 1) == []
    grow_old(lake.lake)
    expected = {orphan, str(half_written.relative_to(lake.lake.root))}
    assert paths(superseded_files(lake.lake, LONG)) == expected


def test_what_a_killed_process_had_begun_to_write_goes_after_the_retention_period(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    killed_while_writing(
        f"""
        from lorif_assets.lake.lake import Lake
        Lake({lake.root!r}).write_named_file("fisher_sums/step-1/sum", ".safetensors", bytes(200_000))
        """
    )
    killed_while_writing(
        f"""
        from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
        from lorif_assets.lake.lake import Lake
        from tests.lake.test_written_rows import PARTITION, factors
        Lake({lake.root!r}).replace(GRADIENT_FACTORS, PARTITION, factors("l", 100_000))
        """
    )
    lake.replace(GRADIENT_FACTORS, PARTITION, factors("l", 3, PARTITION))
    large = {file for file in Path(lake.root).rglob("*") if file.is_file() and file.stat().st_size == 100_000}
    assert len(large) == 2, "one by the lake's own writing, one by delta-rs"
    assert superseded_files(lake, 1) == [], "they may still be written"
    grow_old(lake)
    found = superseded_files(lake, LONG)
    assert paths(found) == {str(file.relative_to(lake.root)) for file in large}
    delete(lake, found)
    assert not any(file.exists() for file in large)
    assert lake.read(GRADIENT_FACTORS).height == 3


@pytest.mark.parametrize("shard", ["s0", "a:shard +%3A é"])
def test_rows_that_were_written_ahead_go_with_their_checksums_unless_they_are_committed(
    tmp_path: Path, shard: str
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    partition = {"checkpoint": "step 1", "shard": shard}
    lost, kept = (lake.write_ahead(GRADIENT_FACTORS, partition, factors("l", 3, partition)) for _ in range(2))
    lake.replace(GRADIENT_FACTORS, partition, kept)
    assert superseded_files(lake, 1) == [], "a worker may just have written it"
    grow_old(lake)
    found = superseded_files(lake, LONG)
    assert paths(found) == {f"{GRADIENT_FACTORS.name}/{lost.path}"}
    delete(lake, found)
    assert lake.read(GRADIENT_FACTORS, shard=shard).height == 3
    assert [file.name for file in Path(lake.root).rglob("*.parquet")] == [Path(kept.path).name]
    assert not [file for file in Path(lake.root, "checksums").rglob("*") if Path(lost.path).name in file.name]


def test_a_name_that_paths_encode_is_recognised(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    lake.write("a:shard +%3A", lake.random_rows(3))
    lake.renew()
    lake.write("a:shard +%3A", lake.random_rows(3))
    grow_old(lake.lake)
    assert superseded_files(lake.lake, LONG) == []
    assert lake.renew().history == "updated: 0 shards are new, 0 gone, 1 changed"


def test_a_file_that_cannot_be_deleted_is_named_and_the_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = edited(tmp_path)
    grow_old(lake.lake)
    found = superseded_files(lake.lake, LONG)
    locked = found[1].path

    class Locked(pafs.SubTreeFileSystem):  # type: ignore[misc]
        def delete_file(self, path: str) -> None:
            if path == locked:
                raise PermissionError("read-only")
            super().delete_file(path)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "files", property(lambda self: Locked(self.root, pafs.LocalFileSystem())))
        with pytest.raises(
            TableError, match=f"1 of {len(found)} superseded files .* cannot be deleted, the first {locked}"
        ):
            delete(lake.lake, found)
    assert paths(superseded_files(lake.lake, LONG)) == {locked}


def test_a_run_that_is_killed_between_two_files_is_taken_up_by_the_next(tmp_path: Path) -> None:
    lake = edited(tmp_path)
    grow_old(lake.lake)
    found = superseded_files(lake.lake, LONG)
    delete(lake.lake, found[:2])
    assert paths(superseded_files(lake.lake, LONG)) == paths(found[2:])
    delete(lake.lake, found)
    assert superseded_files(lake.lake, LONG) == []


def test_without_a_readable_ledger_nothing_is_superseded(tmp_path: Path) -> None:
    lake = edited(tmp_path)
    grow_old(lake.lake)
    table = lake.lake.table(SVD_PRECONDITIONERS)
    assert table is not None
    for uri in table.file_uris():
        Path(uri).unlink()
    with pytest.raises(TableError, match="has lost a data file"):
        superseded_files(lake.lake, LONG)


def test_no_table_changes_and_nothing_becomes_stale(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 0, "a new first sentence")
    private_project.update()
    tables = {name: rows for name, schema in TABLES.items() if (rows := private_project.lake.read(schema)).height}
    grow_old(private_project.lake)
    before = files(private_project.lake)
    pages = set(Path(private_project.lake.root, "reports").rglob("*.html"))
    resources = {"settings": private_project.settings, "lake": private_project.lake}
    result = vacuum_job.execute_in_process(resources=resources, instance=private_project.instance)
    assert result.success
    gone = before - files(private_project.lake)
    assert {path.split("/")[0] for path in gone} >= {"curvature_states", "gradient_factors", "query_scores"}
    assert len(pages) == len(CHECKPOINTS) + 1
    assert all(page.is_file() for page in pages)
    for name, rows in tables.items():
        assert private_project.lake.read(TABLES[name]).equals(rows), name
    assert private_project.update() == {}


def test_a_lake_without_tables_has_nothing_to_delete(tmp_path: Path) -> None:
    tmp_path.joinpath("lake").mkdir()
    assert superseded_files(Lake(root=str(tmp_path / "lake")), 1) == []


def test_factors_of_a_checkpoint_stay_readable(tmp_path: Path) -> None:
    lake = edited(tmp_path)
    grow_old(lake.lake)
    delete(lake.lake, superseded_files(lake.lake, LONG))
    assert lake.lake.read(GRADIENT_FACTORS).select(pl.len()).item() == 120


@pytest.mark.slow
def test_an_object_store_is_vacuumed_the_same_way(object_store: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = FactorLake(object_store, np.random.default_rng(0))
    for shard in ("my-model:7", "s1", "s2"):
        lake.write(shard, lake.random_rows(20))
    lake.renew()
    lake.write("my-model:7", lake.random_rows(4))
    lake.renew()
    monkeypatch.setattr("time.time", lambda: 1e10)
    found = superseded_files(object_store, 1)
    assert [path.split("/")[0] for path in sorted(paths(found))][:1] == ["curvature_states"]
    delete(object_store, found)
    assert lake.renew().rows_read == 0


def test_what_ekfac_needs_stays_and_what_an_edit_replaced_goes(ekfac_project: TinyProject, tmp_path: Path) -> None:
    with private_copy(ekfac_project, tmp_path) as project:
        project.edit_shard(1, 4, "an error closes the file")
        project.update()
        grow_old(project.lake)
        superseded = paths(superseded_files(project.lake, LONG))
        assert {path.split("/")[0] for path in superseded} >= {"curvature_states", "fisher_sums", "gradient_factors"}
        delete(project.lake, superseded_files(project.lake, LONG))
        assert not paths(superseded_files(project.lake, LONG))
        project.edit_shard(0, 2, "a block ends")
        project.update()
        shown = project.figures("ekfac_preconditioners", f"{CHECKPOINTS[0]}|transformer.h.0.mlp.c_fc")
        assert str(shown["how"]).startswith("updated")
