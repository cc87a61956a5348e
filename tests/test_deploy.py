"""The files of `deploy/ray`, as far as they can be tried without Kubernetes and SLURM."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorif_assets.config.settings import load_settings

RAY = Path(__file__).parents[1] / "deploy/ray"
VERSION = "2.60.0"


def parsed(name: str) -> Any:
    return yaml.safe_load((RAY / name).read_text())


def test_the_settings_are_read() -> None:
    settings = load_settings(RAY / "lorif.toml")
    assert settings.compute.engine == "ray"
    assert not settings.lake.storage_options, "credentials come by the environment"


def test_the_cluster_has_a_head_that_computes_nothing_and_workers_with_a_gpu() -> None:
    cluster = parsed("raycluster.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec = cluster["spec"]
    assert spec["rayVersion"] == VERSION
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = spec["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    asked = load_settings(RAY / "lorif.toml").compute
    assert asked.workers == workers["maxReplicas"]
    limits = container["resources"]["limits"]
    assert int(limits["nvidia.com/gpu"]) >= (asked.gpus or 0)
    assert int(limits["cpu"]) >= asked.cpus
    assert int(limits["memory"].removesuffix("Gi")) >= (asked.memory_gib or 0)
    head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["envFrom"] == container["envFrom"] == [{"secretRef": {"name": "lorif-secrets"}}]


def test_the_cluster_has_fields_that_the_operator_knows_and_start_parameters_that_are_text() -> None:
    spec = parsed("raycluster.yaml")["spec"]
    assert spec.keys() <= {
        "rayVersion",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    }
    assert spec["autoscalerOptions"]["upscalingMode"] in {"Default", "Aggressive", "Conservative"}
    assert isinstance(spec["autoscalerOptions"]["idleTimeoutSeconds"], int)
    (workers,) = spec["workerGroupSpecs"]
    of_all = {"rayStartParams", "template"}
    assert spec["headGroupSpec"].keys() == of_all
    assert workers.keys() == of_all | {"groupName", "replicas", "minReplicas", "maxReplicas"}
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (spec["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_charts_and_instances_name_secrets_and_hold_none() -> None:
    values, instance = parsed("dagster-values.yaml"), parsed("dagster.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["envSecrets"] == [{"name": "lorif-secrets"}]
    assert instance["storage"]["postgres"]["postgres_url"] == {"env": "DAGSTER_POSTGRES_URL"}
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2", "the driver that the image has"
    assert "psycopg2-binary" in (RAY / "Dockerfile").read_text()
    assert "env_vars" not in instance["run_launcher"]["config"]["ray"], "Ray's dashboard shows them"


def test_the_run_launcher_takes_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = pytest.importorskip("dagster_ray", reason="needs dagster-ray").RayRunLauncher
    from dagster._core.launcher import RunLauncher
    from dagster._serdes import ConfigurableClassData

    monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", "http://127.0.0.1:8265")
    written = parsed("dagster.yaml")["run_launcher"]
    named = ConfigurableClassData(written["module"], written["class"], yaml.safe_dump(written["config"]))
    made = named.rehydrate(as_type=RunLauncher)
    assert isinstance(made, launcher)
    assert made.address == "http://127.0.0.1:8265"


def test_the_code_location_of_ray_jobs_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dagster_ray", reason="needs dagster-ray")
    monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", "http://127.0.0.1:8265")
    from deploy.ray.definitions import defs

    assert defs.executor is not None
    assert defs.executor.name == "ray"
    assert len(list(defs.assets or ())) > 20
    for job in ("materialize_gradient_factors", "materialize_query_scores", "re_attribution"):
        assert defs.resolve_job_def(job).executor_def.name == "ray", "a step is a Ray job only where its job says so"
    assert parsed("workspace.yaml")["load_from"][0]["python_module"]["module_name"] == "deploy.ray.definitions"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_batch_script_is_a_script_and_ray_knows_its_command() -> None:
    pytest.importorskip("ray", reason="needs ray")
    subprocess.run(["bash", "-n", str(RAY / "lorif.sbatch")], check=True)
    shown = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "symmetric-run", "--help"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "--address" in shown
    assert "--min-nodes" in shown


def test_the_image_has_the_versions_of_the_cluster() -> None:
    assert f"ray=={VERSION}" in (RAY.parents[1] / "constraints.txt").read_text().splitlines()
    assert "--constraint constraints.txt" in (RAY / "Dockerfile").read_text()
