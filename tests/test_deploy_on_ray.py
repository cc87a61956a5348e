"""The start files of `deploy/ray` at work: Dagster's daemon on Postgres launches runs, and steps, as jobs of a Ray cluster."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lorif_assets.config.settings import CONFIG_VARIABLE
from lorif_assets.demo.cluster.nodes import ray_nodes
from lorif_assets.demo.cluster.services import ended, postgres, require_programs
from lorif_assets.errors import LorifError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from tests.conftest import SHARDS, free_port, write_tiny_project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# Nothing is expected to take as long; what hangs ends.
LONGEST = 1_800
JOBS = """
import json, os
from ray.job_submission import JobSubmissionClient
shown = JobSubmissionClient(os.environ["RAY_DASHBOARD_ADDRESS"]).list_jobs()
print(json.dumps([{"entrypoint": job.entrypoint, "runtime_env": job.runtime_env, "metadata": job.metadata} for job in shown]))
"""


@dataclass(frozen=True)
class Deployed:
    """A project below a folder, and the environment of everything that is started for it."""

    root: Path
    environment: dict[str, str]

    @property
    def lake(self) -> Lake:
        return Lake(str(self.root / "lake"))


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """A project, Postgres, and a Ray cluster with its dashboard, which takes jobs."""
    for name in ("dagster_ray", "aiohttp_cors", "opencensus", "ray"):
        pytest.importorskip(name, reason="needs dagster-ray and ray[default]")
    try:
        require_programs()
    except LorifError as missing:
        pytest.skip(str(missing))
    root = tmp_path / "project"
    root.mkdir()
    write_tiny_project(root)
    home = tmp_path / "dagster_home"
    home.mkdir()
    shutil.copy(ROOT / "deploy/ray/dagster.yaml", home)
    port = free_port()
    with postgres(("dagster",)) as database:
        variables = {
            # A Ray job is a command line, whose program is looked for.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": database.url("dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "OUR_PASSWORD": "not-for-the-dashboard",
            CONFIG_VARIABLE: str(root / "lorif.toml"),
            "LORIF_ACTIVE__CHECKPOINTS": "newest",
            "LORIF_AUTOMATION__ENABLED": "true",
            "LORIF_AUTOMATION__INTERVAL_SECONDS": "5",
            "LORIF_COMPUTE__ENGINE": "ray",
            "LORIF_COMPUTE__WORKERS": "1",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        # As many CPUs as runs and their workers ask for; none of them computes for long.
        with ray_nodes(os.environ, tmp_path / "ray.log", cpus=8, dashboard_port=port):
            yield Deployed(root, dict(os.environ))


@contextmanager
def daemon(deployed: Deployed, module: str, log: Path) -> Iterator[Any]:
    """Run Dagster's daemon on a code location."""
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-m", module]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=deployed.environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        ended(process, signal.SIGINT)


def stored(deployed: Deployed, schema: TableSchema) -> set[str]:
    return set(deployed.lake.read(schema, ["shard"])["shard"])


def finished_runs(deployed: Deployed, asset: str) -> list[tuple[dg.DagsterRun, list[str]]]:
    """The runs of an asset that succeeded, with what they logged."""
    with dg.DagsterInstance.from_config(deployed.environment["DAGSTER_HOME"]) as instance:
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        for run in failed:
            raise AssertionError("\n".join(str(entry) for entry in instance.all_logs(run.run_id))[-5_000:])
        filters = dg.RunsFilter(job_name=f"materialize_{asset}", statuses=[dg.DagsterRunStatus.SUCCESS])
        return [(run, [entry.message for entry in instance.all_logs(run.run_id)]) for run in instance.get_runs(filters)]


def jobs(deployed: Deployed) -> list[dict[str, Any]]:
    """The cluster's jobs as its dashboard shows them, asked for by a process that reads the token when it imports Ray."""
    asked = subprocess.run(
        [sys.executable, "-c", JOBS], env=deployed.environment, check=True, capture_output=True, text=True
    )
    return list(json.loads(asked.stdout.splitlines()[-1]))


def wait_for_runs(deployed: Deployed, asset: str, schema: TableSchema, process: Any, log: Path) -> list[str]:
    """Wait until an asset's runs have stored all shards, and return what they logged."""
    end = time.monotonic() + LONGEST
    while True:
        assert process.poll() is None, log.read_text(errors="replace")[-3_000:]
        assert time.monotonic() < end, log.read_text(errors="replace")[-3_000:]
        runs = finished_runs(deployed, asset)
        if runs and stored(deployed, schema) == set(SHARDS):
            return [line for _, lines in runs for line in lines]
        time.sleep(2)


def test_what_the_sensor_launches_runs_as_ray_jobs_whose_workers_are_on_the_cluster(
    deployed: Deployed, tmp_path: Path
) -> None:
    log = tmp_path / "daemon.log"
    with daemon(deployed, "lorif_assets.definitions", log) as process:
        lines = wait_for_runs(deployed, "gradient_factors", GRADIENT_FACTORS, process, log)
    assert any("Ray run job created" in line for line in lines)
    assert any("Ray: up to 1 workers" in line for line in lines)
    assert any(f"{len(SHARDS)} of {len(SHARDS)} shards done" in line for line in lines)
    submitted = jobs(deployed)
    assert any((job["metadata"] or {}).get("dagster/job") == "materialize_gradient_factors" for job in submitted)
    shown = json.dumps(submitted)
    for secret in ("OUR_PASSWORD", "DAGSTER_POSTGRES_URL"):
        assert deployed.environment[secret] not in shown, "Ray's dashboard shows it"


def test_each_step_of_the_code_location_for_ray_is_a_ray_job(deployed: Deployed, tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    with daemon(deployed, "deploy.ray.definitions", log) as process:
        lines = wait_for_runs(deployed, "training_examples", TRAINING_EXAMPLES, process, log)
    assert any("Ray run job created" in line for line in lines)
    assert any('Executing step "training_examples" in Ray job' in line for line in lines)
    assert any((job["metadata"] or {}).get("dagster/op") == "training_examples" for job in jobs(deployed))
