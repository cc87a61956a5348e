"""What MLflow shows of a project: a run per checkpoint, under it a run per materialization."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.check_runs import failed_checks
from lorif_assets.lake.attribution_tables import CHECKPOINT_COMPARISONS, REPORTS
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

CHECKPOINT = CHECKPOINTS[0]


def is_of(run: Any, asset: str) -> bool:
    return bool(run.data.tags["lorif.asset"] == asset)


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
    above = {run.data.tags["lorif.asset"]: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    assert above.keys() == {"checkpoint", "project"}
    parent = above["checkpoint"]
    assert parent.info.run_name == CHECKPOINT
    children = {run.data.tags["lorif.asset"]: run for run in runs if run not in above.values()}
    assert children.keys() == partitions.keys()
    for asset, child in children.items():
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["dagster.run_id"] == dagster_runs[asset]
        assert child.data.tags["dagster.partition"] == partitions[asset]
        assert child.info.run_name == f"{asset} {partitions[asset]}"
        assert f"http://localhost:3000/runs/{dagster_runs[asset]}" in child.data.tags["mlflow.note.content"]
        figures = project.figures(asset, partitions[asset])
        where = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs"
        assert figures["mlflow_run"].startswith(f"{where}/{child.info.run_id}?")
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
    (child,) = [run for run in client.search_runs([experiment.experiment_id]) if is_of(run, "query_scores")]
    assert child.info.status == "FAILED"


def test_the_runs_of_checkpoints_and_of_the_project_have_the_figures(
    private_project: TinyProject, mlflow_uri: str
) -> None:
    from mlflow.tracking import MlflowClient

    tracking = {"uri": mlflow_uri, "experiment": "the figures"}
    addresses = {"explorer": "https://explorer.example/"}
    project = private_project.with_settings(tracking=tracking, addresses=addresses)
    for name in CHECKPOINTS:
        keys = [f"{name}|{shard}" for shard in SHARDS]
        project.run("gradient_factors", keys[0], keys[-1], config={"recompute": True})
        project.run("query_scores", f"{name}|{QUERY_SET}")
        project.run("attribution_report", f"{name}|{QUERY_SET}")
    project.lake.replace(CHECKPOINT_COMPARISONS, {"query_set": QUERY_SET}, CHECKPOINT_COMPARISONS.columns.empty_table())
    project.run("checkpoint_comparison", QUERY_SET)
    assert failed_checks(project.instance, ASSETS, ["gradient_factors"], project.opened) == []
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("the figures")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    first, last = (
        next(run for run in runs if is_of(run, "checkpoint") and run.info.run_name == name) for name in CHECKPOINTS
    )
    of_queries = {f"{name}/{QUERY_SET}" for name in ("loss_per_token", "top_10_share", "top_100_share")}
    common = {"examples", "tokens_per_second", "bytes_per_example", "checks_passed", "checks_failed", *of_queries}
    assert first.data.metrics.keys() == common
    moves = {f"overlap_at_10/{QUERY_SET}", f"rank_biased_overlap/{QUERY_SET}"}
    assert last.data.metrics.keys() == common | moves
    assert last.data.metrics["examples"] == 36
    assert (last.data.metrics["checks_passed"], last.data.metrics["checks_failed"]) == (5, 0)
    scored = project.figures("query_scores", f"{CHECKPOINTS[1]}|{QUERY_SET}")
    assert last.data.metrics[f"loss_per_token/{QUERY_SET}"] == scored["loss_per_token"]
    (shown,) = [run for run in runs if is_of(run, "project")]
    assert shown.info.run_name == project.root.name
    history = client.get_metric_history(shown.info.run_id, f"loss_per_token/{QUERY_SET}")
    assert [one.step for one in history] == [100, 200]
    assert [one.step for one in client.get_metric_history(shown.info.run_id, f"overlap_at_10/{QUERY_SET}")] == [200]
    assert last.data.params["r"] == "8"
    assert last.data.tags["lorif.step"] == "200"
    assert "https://explorer.example/?checkpoint=step-000200" in last.data.tags["mlflow.note.content"]
    (logged,) = last.inputs.dataset_inputs
    assert logged.dataset.name == "docs"
    assert json.loads(logged.dataset.source) == {"uri": str(project.root / "data")}
    assert json.loads(logged.dataset.profile) == {"num_rows": 36, "shards": 3}
    (child,) = [
        run for run in runs if is_of(run, "gradient_factors") and run.data.tags["lorif.checkpoint"] == CHECKPOINTS[1]
    ]
    assert child.info.run_name == f"gradient_factors {CHECKPOINTS[1]}|{SHARDS[0]} and 2 more"
    assert {len(client.get_metric_history(child.info.run_id, name)) for name in child.data.metrics} == {1}
    assert [one.path for one in client.list_artifacts(child.info.run_id)] == ["partitions.csv"]
    (report,) = client.list_artifacts(last.info.run_id, "reports")
    page = Path(client.download_artifacts(last.info.run_id, report.path, str(project.root))).read_text()
    assert f'href="https://explorer.example/reports/comparison/{QUERY_SET}.html"' in page
    assert f"/#/experiments/{experiment.experiment_id}/runs/{last.info.run_id}?" in page
    stored = Path(project.lake.read(REPORTS, checkpoint=CHECKPOINTS[1])["uri"][0]).read_text()
    assert '<a href="http://localhost:3000/runs/' in stored
    assert [one.path for one in client.list_artifacts(shown.info.run_id, "reports/comparison")] == [
        f"reports/comparison/{QUERY_SET}.html"
    ]
