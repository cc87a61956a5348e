"""svd_preconditioners: a layer's curvature over all shards, updated by addition, and what it was fitted to."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.attribution.stored.factors import StoredFactors, stored_factors
from lorif_assets.errors import MismatchError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, SVD_PRECONDITIONERS
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject
from tests.mathematics.references import eigenpairs, relative_error

CHECKPOINT = CHECKPOINTS[0]
LAYER = "transformer.h.0.attn.c_attn"
KEY = f"{CHECKPOINT}|{LAYER}"
CPU = torch.device("cpu")


def row_of(project: TinyProject, layer: str = LAYER) -> dict[str, Any]:
    (row,) = project.table(SVD_PRECONDITIONERS, checkpoint=CHECKPOINT, layer=layer).to_dicts()
    return row


def stored(project: TinyProject) -> StoredFactors:
    record = checkpoint_record(project.lake, CHECKPOINT, project.settings.recipe)
    return stored_factors(project.lake, record, project.settings.recipe)


def gradients(project: TinyProject, layer: str = LAYER) -> torch.Tensor:
    """vec(u v^T) of every stored example, in FP64."""
    blocks = stored(project).blocks([layer], 100, CPU)
    return torch.cat([block[layer].dense().double() for block in blocks])


# --- What is stored --------------------------------------------------------------------------------------------------


def test_a_row_per_layer_says_what_the_state_holds(tiny_project: TinyProject) -> None:
    row = row_of(tiny_project)
    g = gradients(tiny_project)
    assert (row["d1"], row["d2"], row["r"], row["n_examples"]) == (8, 24, 8, 36)
    assert row["trace"] == pytest.approx(float(g.square().sum()))
    assert row["damping"] == pytest.approx(row["trace"] / (8 * 24))
    assert row["captured_energy"] == pytest.approx(sum(row["eigenvalues"][:8]) / row["trace"])
    assert set(json.loads(row["ledger"])) == set(SHARDS)
    assert row["recipe_hash"] == tiny_project.settings.recipe.preconditioner_hash


def test_the_image_is_the_curvature_times_the_basis(tiny_project: TinyProject) -> None:
    tensors = tiny_project.lake.read_tensors(row_of(tiny_project)["state_uri"])
    g = gradients(tiny_project)
    assert relative_error(tensors["image"], g.T @ (g @ tensors["basis"].double())) < 1e-5


def test_eigenvalues_come_near_those_of_the_stored_gradients_and_never_exceed_them(tiny_project: TinyProject) -> None:
    values, _ = eigenpairs(gradients(tiny_project))
    found = torch.tensor(row_of(tiny_project)["eigenvalues"][:8])
    assert bool((found <= values[:8] * (1 + 1e-4)).all())
    assert relative_error(found, values[:8]) < 0.15


def test_the_states_tensors_lie_where_the_row_points(tiny_project: TinyProject) -> None:
    tensors = tiny_project.lake.read_tensors(row_of(tiny_project)["state_uri"])
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "basis": (192, 40),
        "image": (192, 40),
        "vectors": (192, 8),
    }


def test_the_metadata_show_the_spectrum_as_a_picture(private_project: TinyProject) -> None:
    from dataclasses import replace

    project = replace(private_project, draws=True)
    project.run("svd_preconditioners", KEY)
    figures = project.figures("svd_preconditioners", KEY)
    row = row_of(project)
    assert (figures["examples"], figures["shards"], figures["r"]) == (36, 3, 8)
    assert figures["captured_energy"] == pytest.approx(row["captured_energy"])
    assert figures["damping"] == pytest.approx(row["damping"])
    assert figures["spectra"].startswith("![spectra](data:image/png;base64,iVBOR")


def test_the_picture_of_all_spectra_comes_with_the_last_layer_of_a_run_alone(recorded_project: TinyProject) -> None:
    record = checkpoint_record(recorded_project.lake, CHECKPOINT, recorded_project.settings.recipe)
    recorded = [
        recorded_project.recorded("svd_preconditioners", f"{CHECKPOINT}|{layer}") for layer in record.layer_shapes
    ]
    assert len(recorded) > 1
    assert ["spectra" in one.metadata for one in recorded] == [False] * (len(recorded) - 1) + [True]


def test_one_partition_and_many_are_recorded_with_the_same_data_versions(recorded_project: TinyProject) -> None:
    tag = "dagster/data_version"
    many = (recorded_project.recorded("svd_preconditioners", KEY).tags or {})[tag]
    recorded_project.run("svd_preconditioners", KEY)
    one = (recorded_project.recorded("svd_preconditioners", KEY).tags or {})[tag]
    assert one == many == row_of(recorded_project)["version"]


# --- Updating --------------------------------------------------------------------------------------------------------


def test_an_updated_state_equals_one_built_from_scratch(private_project: TinyProject) -> None:
    private_project.edit_shard(1, 4, "an error closes the file")
    private_project.update()
    assert private_project.figures("svd_preconditioners", KEY)["how"].startswith(
        "updated: 0 shards are new, 0 gone, 1 ch"
    )
    updated = row_of(private_project)
    image = private_project.lake.read_tensors(updated["state_uri"])["image"]
    nothing = SVD_PRECONDITIONERS.columns.empty_table()
    private_project.lake.replace(SVD_PRECONDITIONERS, {"checkpoint": CHECKPOINT, "layer": LAYER}, nothing)
    private_project.run("svd_preconditioners", KEY)
    assert private_project.figures("svd_preconditioners", KEY)["how"] == "built: the layer had no state"
    built = row_of(private_project)
    assert relative_error(image, private_project.lake.read_tensors(built["state_uri"])["image"]) < 1e-5
    assert updated["trace"] == pytest.approx(built["trace"], rel=1e-9)
    assert updated["n_examples"] == built["n_examples"] == 36
    assert updated["version"] == built["version"]
    assert updated["eigenvalues"] == pytest.approx(built["eigenvalues"], rel=1e-3, abs=1e-6 * built["trace"])


@pytest.mark.parametrize("damage", ["lost", "cut short"])
def test_a_state_whose_file_is_gone_or_damaged_is_built_again(private_project: TinyProject, damage: str) -> None:
    before = row_of(private_project)
    file = Path(private_project.lake.root, before["state_uri"])
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-10])
    private_project.run("svd_preconditioners", KEY)
    after = row_of(private_project)
    assert private_project.figures("svd_preconditioners", KEY)["how"].startswith("built: the state")
    assert after["eigenvalues"] == pytest.approx(before["eigenvalues"])


def test_a_state_is_built_again_where_replaced_factors_were_vacuumed_away(private_project: TinyProject) -> None:
    private_project.edit_shard(1, 4, "an error closes the file")
    private_project.run("training_examples", SHARDS[1])
    private_project.run("gradient_factors", f"{CHECKPOINT}|{SHARDS[1]}")
    table = private_project.lake.table(GRADIENT_FACTORS)
    assert table is not None
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    private_project.run("svd_preconditioners", KEY)
    assert private_project.figures("svd_preconditioners", KEY)["how"].startswith("built: the state or replaced factors")
    assert row_of(private_project)["trace"] == pytest.approx(float(gradients(private_project).square().sum()))


def test_another_damping_needs_no_pass_over_the_factors(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"damping": 3.0})
    before = row_of(project)
    project.run("svd_preconditioners", KEY)
    assert project.figures("svd_preconditioners", KEY)["examples_read"] == 0
    assert row_of(project)["damping"] == pytest.approx(3 * before["damping"])


# --- Refining --------------------------------------------------------------------------------------------------------


def test_a_refined_layer_renews_the_scores_of_its_checkpoint_and_nothing_else(private_project: TinyProject) -> None:
    private_project.run("svd_preconditioners", KEY, config={"refine": True})
    figures = private_project.figures("svd_preconditioners", KEY)
    assert figures["how"].startswith("refined on all 36 examples")
    assert figures["needs_refine"] is False
    scores = {f"{CHECKPOINT}|{QUERY_SET}"}
    assert private_project.update() == {
        "query_scores": scores,
        "attribution_report": scores,
        "checkpoint_comparison": {QUERY_SET},
    }
    assert private_project.update() == {}


# --- Settings of the curvature ---------------------------------------------------------------------------------------


def test_rank_zero_keeps_the_trace_alone(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"r": 0})
    project.run("svd_preconditioners", KEY)
    row = row_of(project)
    assert (row["r"], row["eigenvalues"], row["captured_energy"]) == (0, [], 0.0)
    assert row["trace"] == pytest.approx(row_of(project, "transformer.h.0.attn.c_attn")["trace"])


def test_a_rank_beyond_the_layer_gives_every_eigenvalue(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"r": 10_000})
    project.run("svd_preconditioners", KEY)
    row = row_of(project)
    values, _ = eigenpairs(gradients(project))
    assert row["r"] == 192
    assert row["captured_energy"] == pytest.approx(1.0, abs=1e-4)
    assert relative_error(torch.tensor(row["eigenvalues"]), values) < 1e-4


# --- Refusals --------------------------------------------------------------------------------------------------------


def test_a_layer_that_the_checkpoint_does_not_track_is_refused(private_project: TinyProject) -> None:
    before = private_project.table(SVD_PRECONDITIONERS)
    private_project.instance.add_dynamic_partitions("layers", ["transformer.h.9.attn.c_attn"])
    with pytest.raises(MismatchError, match=r"has no tracked layer 'transformer\.h\.9\.attn\.c_attn'"):
        private_project.run("svd_preconditioners", f"{CHECKPOINT}|transformer.h.9.attn.c_attn")
    assert private_project.table(SVD_PRECONDITIONERS).equals(before)


def test_a_checkpoint_without_factors_is_refused(private_project: TinyProject) -> None:
    for shard in SHARDS:
        partition = {"checkpoint": CHECKPOINT, "shard": shard}
        private_project.lake.replace(GRADIENT_FACTORS, partition, GRADIENT_FACTORS.columns.empty_table())
    with pytest.raises(MismatchError, match=f"'{CHECKPOINT}' has no gradient factors; materialize `gradient_factors`"):
        private_project.run("svd_preconditioners", KEY)


def test_the_stored_rows_are_complete_for_every_checkpoint_and_layer(tiny_project: TinyProject) -> None:
    counts = tiny_project.table(SVD_PRECONDITIONERS).group_by("checkpoint").agg(pl.col("layer").n_unique())
    assert dict(counts.iter_rows()) == dict.fromkeys(CHECKPOINTS, 4)
