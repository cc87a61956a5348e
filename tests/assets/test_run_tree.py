"""What MLflow shows of a project: a run per checkpoint, under it a run per materialization."""

from pathlib import Path

import pytest

from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

CHECKPOINT = CHECKPOINTS[0]


def test_materializations_are_runs_under_their_checkpoint(private_project: TinyProject, mlflow_uri: str) -> None:
    from mlflow.tracking import MlflowClient

    project = private_project.with_settings(tracking={"uri": mlflow_uri, "experiment": "run tree"})
    partitions = {
        "gradient_factors": f"{CHECKPOINT}|{SHARDS[0]}",
        "svd_preconditioners": f"{CHECKPOINT}|transformer.h.0.attn.c_attn",
        "query_scores": f"{CHECKPOINT}|{QUERY_SET}",
        "attribution_report": f"{CHECKPOINT}|{QUERY_SET}",
    }
    dagster_runs = {
        asset: project.run(asset, partition, config={"recompute": True} if asset == "gradient_factors" else None).run_id
        for asset, partition in partitions.items()
    }
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("run tree")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.run_name == CHECKPOINT
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert children.keys() == partitions.keys()
    for asset, child in children.items():
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["dagster.run_id"] == dagster_runs[asset]
        assert child.data.tags["dagster.partition"] == partitions[asset]
        figures = project.figures(asset, partitions[asset])
        assert child.data.metrics.items() <= {k: v for k, v in figures.items() if isinstance(v, int | float)}.items()
    assert children["gradient_factors"].data.params["r"] == "8"
    assert children["gradient_factors"].data.metrics["tokens_per_second"] > 0
    assert children["svd_preconditioners"].data.metrics["captured_energy"] > 0
    artifacts = {
        asset: [artifact.path for artifact in client.list_artifacts(child.info.run_id)]
        for asset, child in children.items()
    }
    assert artifacts["attribution_report"] == [f"{QUERY_SET}.html"]
    assert artifacts["svd_preconditioners"] == ["spectra.png"]


def test_a_materialization_that_fails_is_a_failed_run(private_project: TinyProject, mlflow_uri: str) -> None:
    from mlflow.tracking import MlflowClient

    from lorif_assets.errors import MismatchError

    project = private_project.with_settings(tracking={"uri": mlflow_uri, "experiment": "failed"})
    config = Path(project.root, "checkpoints", CHECKPOINT, "tokenizer_config.json")
    config.write_text(config.read_text() + "\n")
    with pytest.raises(MismatchError):
        project.run("query_scores", f"{CHECKPOINT}|{QUERY_SET}")
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("failed")
    assert experiment
    (child,) = [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "query_scores"]
    assert child.info.status == "FAILED"
