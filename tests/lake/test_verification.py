"""`lorif verify` names every bit that a disk flipped, in whichever file, and what is materialized next mends it."""

from pathlib import Path

import pytest

from lorif_assets.assets.graph import EVALUATION, GRAPH
from lorif_assets.errors import DamagedLakeError, LorifError
from lorif_assets.lake.attribution_tables import (
    CHECKPOINT_COMPARISONS,
    GRADIENT_FACTORS,
    QUERY_SCORES,
    QUERY_SUMMARIES,
    SVD_PRECONDITIONERS,
)
from lorif_assets.lake.damage import OTHER_CONTENT, Damage, notes
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.tables import TABLES
from lorif_assets.lake.verification import Verification, files_to_verify, verify
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject, private_copy
from tests.damaged_files import chosen_files, flip_bit, flip_bits, kind

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
        # A file whose row was made again is nobody's any more, and stays until vacuum.
        assert [damage for damage in verified(project.lake).damage if "lorif vacuum" not in damage.remedy] == []
        assert notes(project.lake.stored) == []
        for schema in (QUERY_SCORES, GRADIENT_FACTORS, CHECKPOINT_COMPARISONS):
            keys = [
                name for name in schema.columns.names if name.endswith(("id", "rank", "side", "shard", "checkpoint"))
            ]
            both = [one.table(schema).sort(keys).drop(DIFFERENT, strict=False) for one in (project, tiny_project)]
            assert both[0].equals(both[1])


# --- What each stage does ----------------------------------------------------------------------------------------


def test_scores_are_not_computed_from_a_flipped_bit_and_the_next_update_mends_it(
    tiny_project: TinyProject, private_project: TinyProject
) -> None:
    path = data_file(private_project, "gradient_factors", CHECKPOINTS[0], SHARDS[1])
    flip_bit(private_project.lake, path, 8 * 4_000)
    private_project.lake.replace(QUERY_SUMMARIES, PARTITION, QUERY_SUMMARIES.columns.empty_table())
    with pytest.raises(LorifError, match=f"{path} of the table gradient_factors, .*run `lorif materialize`"):
        private_project.update()
    (stale,) = private_project.stale("gradient_factors").items()
    assert stale[0] == f"{CHECKPOINTS[0]}|{SHARDS[1]}"
    assert stale[1].reason == f"damaged: the file {path} is not what was written: its checksum differs"
    assert private_project.update()["gradient_factors"] == {stale[0]}
    assert private_project.stale("gradient_factors") == {}
    keys = ["query_id", "side", "rank"]
    mended, before = (one.table(QUERY_SCORES, **PARTITION).sort(keys) for one in (private_project, tiny_project))
    assert mended.equals(before)


DAMAGED_TENSORS = {
    "kfac_bases": "kfac_bases_tensors",
    "gradient_factors": "fisher_sums",
    "ekfac_preconditioners": "curvature_states",
}


@pytest.mark.parametrize("asset", DAMAGED_TENSORS)
def test_a_flipped_bit_of_tensors_is_found_by_verify_and_mended_by_the_next_update(
    ekfac_project: TinyProject, tmp_path: Path, asset: str
) -> None:
    with private_copy(ekfac_project, tmp_path) as project:
        folder = DAMAGED_TENSORS[asset]
        path = next(
            path
            for path in files_to_verify(project.lake)
            if path.startswith(f"{folder}/{CHECKPOINTS[0]}") and path.endswith(".safetensors")
        )
        flip_bit(project.lake, path, -100)
        (damage,) = verified(project.lake).damage
        assert (damage.file, damage.asset, damage.partition["checkpoint"]) == (path, asset, CHECKPOINTS[0])
        made = project.update()[asset]
        assert all(key.startswith(CHECKPOINTS[0]) for key in made)
        assert verified(project.lake).damage == []
        keys = ["checkpoint", "query_id", "side", "rank"]
        mended, before = (one.table(QUERY_SCORES).sort(keys) for one in (project, ekfac_project))
        assert mended["example_id"].to_list() == before["example_id"].to_list()
        assert mended["score"].to_list() == pytest.approx(before["score"].to_list(), rel=1e-4)


def test_damage_of_a_curvature_state_in_passing_names_it(private_project: TinyProject) -> None:
    row = private_project.table(SVD_PRECONDITIONERS, checkpoint=CHECKPOINTS[0]).row(0, named=True)
    flip_bit(private_project.lake, row["state_uri"], -100)
    with pytest.raises(
        DamagedLakeError, match=f"{row['state_uri']} of the table svd_preconditioners, .*{row['layer']}"
    ):
        private_project.run("query_scores", f"{CHECKPOINTS[0]}|{QUERY_SET}")
    assert set(private_project.stale("svd_preconditioners")) == {f"{CHECKPOINTS[0]}|{row['layer']}"}


def test_a_page_that_was_lost_is_named_and_rendered_again(private_project: TinyProject) -> None:
    page = f"reports/{CHECKPOINTS[0]}/{QUERY_SET}.html"
    Path(private_project.lake.root, page).unlink()
    (damage,) = verified(private_project.lake).damage
    assert str(damage) == (
        f"the file {page} of the table reports, checkpoint = {CHECKPOINTS[0]!r}, query_set = {QUERY_SET!r} is gone; run "
        f"`lorif materialize`, which makes `attribution_report`, partition {CHECKPOINTS[0]}|{QUERY_SET}, again"
    )
    assert private_project.update() == {"attribution_report": {f"{CHECKPOINTS[0]}|{QUERY_SET}"}}
    assert verified(private_project.lake).damage == []


def test_a_lost_log_entry_is_named_and_put_back(private_project: TinyProject) -> None:
    entries = sorted(Path(private_project.lake.root, "gradient_factors/_delta_log").glob("*.json"))
    before = private_project.table(GRADIENT_FACTORS).height
    entries[-1].unlink()
    (damage,) = verified(private_project.lake).damage
    assert (damage.file, damage.what) == (f"gradient_factors/_delta_log/{entries[-1].name}", "is gone")
    assert private_project.table(GRADIENT_FACTORS).height == before
    assert verified(private_project.lake).damage == []


@pytest.mark.parametrize("table", TABLES)
def test_every_table_says_which_command_makes_it_again(table: str) -> None:
    partition = dict.fromkeys(TABLES[table].partition_by, "x")
    if table in {"rejected", "evaluation_figures"}:
        partition["stage" if table == "rejected" else "evaluation"] = "tail_patch"
    damage = Damage("a file", OTHER_CONTENT, table, partition)
    on_demand = {asset.name for asset in EVALUATION}
    # What is tried, and what a person decided, is no asset's.
    if own := {"recipe_trials": "lorif tune", "kept_shards": "lorif withdraw --keep"}.get(table):
        assert f"run `{own}`" in str(damage)
        return
    assert damage.asset in {asset.name for asset in GRAPH}
    expected = "lorif evaluate" if damage.asset in on_demand and table != "rejected" else "lorif materialize"
    assert f"run `{expected}`, which makes `{damage.asset}`" in str(damage)
