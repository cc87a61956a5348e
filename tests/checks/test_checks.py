"""Every asset check passes on a sound project, and fails for the fault it is there for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from lorif_assets import checks
from lorif_assets.assets.graph import ASSETS
from lorif_assets.assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from lorif_assets.automation.jobs import ASSET_JOBS
from lorif_assets.lake.attribution_tables import (
    EKFAC_PRECONDITIONERS,
    GRADIENT_FACTORS,
    KFAC_BASES,
    SVD_PRECONDITIONERS,
)
from lorif_assets.lake.data_tables import REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.table_schema import TableSchema
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, ROWS_PER_SHARD, SHARDS, TinyProject, private_copy

BY_NAME = {check.check_key.name: check for check in checks.CHECKS}


RECOMPUTED = {"factors_reproduce_gradients", "examples_retrieve_themselves"}


def run(project: TinyProject, name: str) -> dg.AssetCheckResult | Any:
    """The check's result: called as a function, or in a run of its own where it asks Dagster for its last result."""
    check = BY_NAME[name]
    if name not in RECOMPUTED:
        opened = project.opened
        resources = {**vars(opened), "model_checkpoints": opened.checkpoints}
        return check(**{key: resources[key] for key in check.required_resource_keys if key in resources})
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*(asset.definition for asset in ASSETS), check],
            selection=dg.AssetSelection.checks(check.check_key),
            instance=instance,
            resources=dagster_resources(project.opened),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def replace(project: TinyProject, schema: TableSchema, partition: dict[str, str], **columns: pl.Expr) -> None:
    rows = project.lake.table(schema)
    assert rows is not None
    frame = pl.scan_delta(rows).filter(*[pl.col(k) == v for k, v in partition.items()]).collect()
    project.lake.replace(schema, partition, frame.with_columns(**columns).to_arrow())


@pytest.mark.parametrize("name", BY_NAME)
def test_a_sound_project_passes(tiny_project: TinyProject, name: str) -> None:
    result = run(tiny_project, name)
    assert result.passed, result.description


def test_an_id_in_two_shards_fails(private_project: TinyProject) -> None:
    other = private_project.table(TRAINING_EXAMPLES, shard=SHARDS[0])["example_id"][0]
    replace(private_project, TRAINING_EXAMPLES, {"shard": SHARDS[1]}, example_id=pl.lit(other))
    result = run(private_project, "example_ids_are_unique")
    assert not result.passed
    assert other in result.description


def test_a_shard_whose_rows_all_stand_in_others_warns(private_project: TinyProject) -> None:
    """As those of a file do that was copied under another name, compressed, or cut and sorted otherwise."""
    examples = [private_project.table(TRAINING_EXAMPLES, shard=shard) for shard in SHARDS]
    contents = pl.concat([examples[0][6:], examples[2][:6]])["content_hash"].reverse()
    replace(private_project, TRAINING_EXAMPLES, {"shard": SHARDS[1]}, content_hash=pl.lit(contents))
    result = run(private_project, "shards_are_no_copies")
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"{SHARDS[1]}: all 12 contents of its rows stand in other shards too" in result.description
    assert all(shard in result.description for shard in (SHARDS[0], SHARDS[2]))


def test_rows_that_stand_in_two_shards_among_others_are_no_copy(private_project: TinyProject) -> None:
    first = private_project.table(TRAINING_EXAMPLES, shard=SHARDS[0])["content_hash"]
    repeated = pl.when(pl.col("row") < 11).then(pl.lit(first)).otherwise(pl.col("content_hash"))
    replace(private_project, TRAINING_EXAMPLES, {"shard": SHARDS[1]}, content_hash=repeated)
    assert run(private_project, "shards_are_no_copies").passed


def test_missing_rows_of_factors_fail_unless_they_were_set_aside(private_project: TinyProject) -> None:
    partition = {"checkpoint": CHECKPOINTS[0], "shard": SHARDS[0]}
    table = private_project.lake.table(GRADIENT_FACTORS)
    assert table is not None
    rows = pl.scan_delta(table).filter(*[pl.col(k) == v for k, v in partition.items()]).collect()
    private_project.lake.replace(GRADIENT_FACTORS, partition, rows[1:].to_arrow())
    assert not run(private_project, "factor_rows_are_complete").passed
    part = {"stage": "gradient_factors", "part": f"{CHECKPOINTS[0]}|{SHARDS[0]}"}
    row = {**part, "example_id": rows["example_id"][0], "row": 0, "reason": "on purpose", "excerpt": ""}
    private_project.lake.replace(REJECTED, part, pa.Table.from_pylist([row], schema=REJECTED.columns))
    assert run(private_project, "factor_rows_are_complete").passed


@pytest.mark.parametrize("column", ["shard_hash", "weights_hash"])
def test_factors_of_other_data_or_weights_fail(private_project: TinyProject, column: str) -> None:
    partition = {"checkpoint": CHECKPOINTS[0], "shard": SHARDS[0]}
    replace(private_project, GRADIENT_FACTORS, partition, **{column: pl.lit("another")})
    result = run(private_project, "factors_match_their_inputs")
    assert not result.passed
    assert SHARDS[0] in result.description


def test_a_projection_of_its_own_fails(private_project: TinyProject) -> None:
    partition = {"checkpoint": CHECKPOINTS[0], "shard": SHARDS[0]}
    replace(private_project, GRADIENT_FACTORS, partition, projection=pl.lit("another"))
    assert "2 different projections" in run(private_project, "factors_match_their_inputs").description


def test_a_loss_that_is_not_finite_fails(private_project: TinyProject) -> None:
    partition = {"checkpoint": CHECKPOINTS[0], "shard": SHARDS[0]}
    nan = pl.lit(float("nan"), dtype=pl.Float32)
    replace(private_project, GRADIENT_FACTORS, partition, loss=nan)
    assert not run(private_project, "losses_are_finite").passed


def test_unsorted_eigenvalues_and_skewed_vectors_fail(private_project: TinyProject) -> None:
    row = private_project.table(SVD_PRECONDITIONERS).row(0, named=True)
    partition = {"checkpoint": row["checkpoint"], "layer": row["layer"]}
    tensors = private_project.lake.read_tensors(row["state_uri"])
    skewed = private_project.lake.write_tensors("curvature_states/x", {**tensors, "vectors": tensors["vectors"] * 2})
    changed = {**row, "eigenvalues": row["eigenvalues"][::-1], "state_uri": skewed}
    private_project.lake.replace(
        SVD_PRECONDITIONERS, partition, pa.Table.from_pylist([changed], schema=SVD_PRECONDITIONERS.columns)
    )
    found = run(private_project, "curvature_is_sound")
    assert not found.passed
    assert found.metadata["found_wrong"].value >= 2


def test_damping_far_below_the_tail_warns_in_truncated_form_alone(tiny_project: TinyProject) -> None:
    row = tiny_project.table(SVD_PRECONDITIONERS)
    assert row.height
    trap = tiny_project.with_settings(recipe={"curvature_form": "truncated"})
    sound = run(trap, "damping_is_safe")
    assert sound.passed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorif_assets.checks.curvature._TRAP", 1e9)
        caught = run(trap, "damping_is_safe")
        assert not caught.passed
        assert caught.severity is dg.AssetCheckSeverity.WARN
        assert run(tiny_project, "damping_is_safe").passed


def test_an_edited_source_makes_attribution_not_fresh(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 0, "a new first sentence")
    result = run(private_project, "attribution_is_fresh")
    assert not result.passed
    assert SHARDS[0] in result.description


def test_a_layer_that_asks_for_a_refinement_warns_with_the_remedy(private_project: TinyProject) -> None:
    row = private_project.table(SVD_PRECONDITIONERS).row(0, named=True)
    partition = {"checkpoint": row["checkpoint"], "layer": row["layer"]}
    drifted = {**row, "added_energy": 10.0, "added_energy_captured": 1.0, "needs_refine": True}
    private_project.lake.replace(
        SVD_PRECONDITIONERS, partition, pa.Table.from_pylist([drifted], schema=SVD_PRECONDITIONERS.columns)
    )
    found = run(private_project, "curvature_has_not_drifted")
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert f"{row['checkpoint']}|{row['layer']}: 10.0% of the added" in found.description
    assert "refine: true" in found.metadata["remedy"].value


# --- Computed anew ---------------------------------------------------------------------------------------------------


def shuffled(project: TinyProject, layers: list[str]) -> None:
    """Give the examples of every shard of one checkpoint one another's factors."""
    for shard in SHARDS:
        partition = {"checkpoint": CHECKPOINTS[0], "shard": shard}
        replace(project, GRADIENT_FACTORS, partition, **{layer: pl.col(layer).reverse() for layer in layers})


def test_factors_of_other_examples_do_not_reproduce_the_gradients(private_project: TinyProject) -> None:
    layer = "transformer.h.1.mlp.c_fc"
    shuffled(private_project, [layer])
    found = run(private_project, "factors_reproduce_gradients")
    assert not found.passed
    assert found.metadata["found_wrong"].value == 1
    assert f"{CHECKPOINTS[0]}|{layer}" in found.description


def test_examples_do_not_retrieve_themselves_by_the_factors_of_others(private_project: TinyProject) -> None:
    layers = list(private_project.table(SVD_PRECONDITIONERS)["layer"].unique())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorif_assets.checks.recomputed._TOP", 1)
        assert run(private_project, "examples_retrieve_themselves").passed
        shuffled(private_project, layers)
        found = run(private_project, "examples_retrieve_themselves")
    assert not found.passed
    assert CHECKPOINTS[0] in found.description
    assert found.metadata["self_retrieval_rate"].value < 0.5


def test_examples_that_longer_ones_repeat_whole_retrieve_themselves(ekfac_project: TinyProject, tmp_path: Path) -> None:
    """The longer one may well have the larger score, and is no better match."""
    with private_copy(ekfac_project, tmp_path) as project:
        for shard in range(len(SHARDS)):
            for row in range(ROWS_PER_SHARD):
                project.edit_shard(shard, row, " ".join([f"a file of kind {shard}"] * (1 + row)))
        project.update()
        found = run(project, "examples_retrieve_themselves")
    assert found.metadata["self_retrieval_rate"].value == 1.0


def test_data_that_were_edited_since_are_left_to_the_other_checks(private_project: TinyProject) -> None:
    for shard in SHARDS:
        replace(private_project, TRAINING_EXAMPLES, {"shard": shard}, shard_hash=pl.lit("another"))
    found = run(private_project, "factors_reproduce_gradients")
    assert found.passed
    assert "is not what its gradient factors were computed from" in found.metadata["not_checked"].value


def test_the_checks_that_load_the_model_wait_for_the_gpu_pool() -> None:
    pools = {name for name, check in BY_NAME.items() if check.op.pool == "gpu"}
    assert pools == {"factors_reproduce_gradients", "examples_retrieve_themselves"}


# --- The curvature `ekfac` -------------------------------------------------------------------------------------------

EKFAC_CHECKS = sorted(BY_NAME.keys() - {"bases_are_settled"})


@pytest.mark.parametrize("name", EKFAC_CHECKS)
def test_a_sound_project_of_the_other_curvature_passes(ekfac_project: TinyProject, name: str) -> None:
    result = run(ekfac_project, name)
    assert result.passed, result.description


@pytest.fixture
def private_ekfac(ekfac_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    with private_copy(ekfac_project, tmp_path) as project:
        yield project


def test_bases_that_the_halves_of_the_sample_do_not_agree_on_fail_with_the_remedy(private_ekfac: TinyProject) -> None:
    replace(private_ekfac, KFAC_BASES, {"checkpoint": CHECKPOINTS[0]}, half_agreement=pl.lit(0.5))
    result = run(private_ekfac, "bases_are_settled")
    assert not result.passed
    assert result.metadata["remedy"].value == "raise recipe.kfac_examples"
    for name in CHECKPOINTS:
        replace(private_ekfac, KFAC_BASES, {"checkpoint": name}, half_agreement=pl.lit(0.99))
    assert run(private_ekfac, "bases_are_settled").passed


def test_sums_that_hold_other_examples_than_are_stored_fail(private_ekfac: TinyProject) -> None:
    layer = private_ekfac.table(EKFAC_PRECONDITIONERS)["layer"][0]
    where = {"checkpoint": CHECKPOINTS[0], "layer": layer}
    replace(private_ekfac, EKFAC_PRECONDITIONERS, where, n_examples=pl.lit(35))
    assert "holds 35 of 36 stored examples" in run(private_ekfac, "fisher_is_sound").description


# --- in the runs that materialize -------------------------------------------------------------------------------------


def evaluated(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def job_run(project: TinyProject, asset: str, *keys: str) -> dg.ExecuteInProcessResult:
    """A run of the asset's job for one partition, or a range, as the sensor launches it."""
    definitions = dg.Definitions(
        assets=[one.definition for one in ASSETS],
        asset_checks=checks.CHECKS,
        jobs=[ASSET_JOBS[asset]],
        resources=dagster_resources(project.opened),
    )
    return definitions.resolve_job_def(ASSET_JOBS[asset].name).execute_in_process(
        instance=project.instance,
        partition_key=keys[0] if len(keys) == 1 else None,
        tags={} if len(keys) == 1 else {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


@pytest.mark.parametrize("n_shards", [1, 3])
def test_checks_run_with_every_materialization_of_one_partition_or_of_many(
    private_project: TinyProject, n_shards: int
) -> None:
    keys = [f"{CHECKPOINTS[0]}|{shard}" for shard in SHARDS[:n_shards]]
    result = job_run(private_project, "gradient_factors", *keys)
    assert {name: one.passed for name, one in evaluated(result).items()} == {
        "factor_rows_are_complete": True,
        "factors_match_their_inputs": True,
        "losses_are_finite": True,
        "examples_are_not_learned_by_heart": True,
        "factors_reproduce_gradients": True,
    }
    # The output that the checks wait for records nothing: each partition has the one materialization that it logged.
    events = result.get_asset_materialization_events()
    assert sorted(event.partition or "" for event in events) == sorted(keys)
    assert all(event.materialization.tags for event in events)


def test_a_run_computes_samples_of_its_own_checkpoint_again_and_of_those_that_failed_last(
    private_project: TinyProject,
) -> None:
    first, second = CHECKPOINTS
    layers = list(private_project.table(SVD_PRECONDITIONERS)["layer"].unique())
    shuffled(private_project, layers)

    def checked(checkpoint: str) -> dg.AssetCheckEvaluation:
        return evaluated(job_run(private_project, "gradient_factors", f"{checkpoint}|{SHARDS[1]}"))[
            "factors_reproduce_gradients"
        ]

    passed = checked(second)
    assert passed.passed
    assert passed.metadata["layers"].value == len(layers)
    found = checked(first)
    assert not found.passed
    assert found.metadata["failed_checkpoints"].value == first
    # The failure stays to be seen until it is mended.
    again = checked(second)
    assert not again.passed
    assert again.metadata["layers"].value == 2 * len(layers)
