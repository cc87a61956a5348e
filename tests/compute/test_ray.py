"""The engine `ray` on a cluster of three nodes in this machine: what is lost is done again, and nothing twice."""

import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lorif_assets.compute.ray_engine import RayEngine
from lorif_assets.compute.shard_work import Step, result, results
from lorif_assets.config.compute import ComputeSettings
from lorif_assets.errors import LorifError, SettingsError, TableError, UnsoundQueryError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from tests.compute.ray_step import committed
from tests.compute.ray_work import Doubling, Lasting, Opened, doubled, pid
from tests.compute.same_tables import assert_same_tables
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject, private_copy

pytest.importorskip("ray", reason="needs ray")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LOG = logging.getLogger("test.ray")
# How soon a node that is gone is taken for lost.
_HEALTH = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "health_check_timeout_ms": 1_000,
    "health_check_initial_delay_ms": 0,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head node that holds no worker, and two nodes with a CPU each; this process is not connected yet."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Workers have to find the project and these tests, and their threads have to sum in the order of this process.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        started = Cluster(
            initialize_head=True,
            # Its hooks are signal handlers, which only the main thread may set, and nodes are added from another.
            shutdown_at_exit=False,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": _HEALTH},
        )
        for _ in range(2):
            started.add_node(num_cpus=1)
        yield started
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def settings(cluster: Any) -> ComputeSettings:
    while len([node for node in cluster.worker_nodes if node.any_processes_alive()]) < 2:
        cluster.add_node(num_cpus=1)
    return ComputeSettings(engine="ray", address=cluster.address, workers=2, attempts=20)


def outcomes(workers: Any, shards: list[str]) -> dict[str, Any]:
    return {
        shard: outcome.exception() or outcome.result()
        for shard, outcome in workers.map_shards(Doubling(), shards, lambda stored: stored)
    }


def test_workers_load_once_answer_for_each_shard_and_say_where_it_failed(
    settings: ComputeSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=LOG.name)
    shards = [*(f"s{number}:{number}" for number in range(20)), "absent:1", "unsound:1"]
    with RayEngine(settings, 1).workers(Opened(tmp_path), LOG) as workers:
        found = outcomes(workers, shards)
        assert [float(found[shard]["numbers"]) for shard in shards[:20]] == [2.0 * number for number in range(20)]
        where = r"\({}, by worker \d+ \(process \d+ on the node [\d.]+\)\)"
        assert isinstance(found["absent:1"], TableError)
        assert re.search("the shard is not there " + where.format("absent:1"), str(found["absent:1"]))
        assert isinstance(found["unsound:1"], UnsoundQueryError)
        assert found["unsound:1"].query_ids == {"q"}
        assert list(results(workers, Step(doubled), [3, 1, 2])) == [6, 2, 4]
        assert result(workers, pid) != os.getpid()
        with pytest.raises(KeyError, match="mistaken"):
            outcomes(workers, ["mistaken:1"])
        # What broke off leaves nothing behind for the next.
        assert outcomes(workers, ["a:1"]).keys() == {"a:1"}
    processes = {stored["pid"] for stored in found.values() if isinstance(stored, dict)}
    assert len(processes) <= 2
    assert len(list(tmp_path.glob("opened-*"))) <= 3, "two workers, and one in place of that which was dismissed"
    lines = [record.getMessage() for record in caplog.records]
    assert any(re.search(r"22 of 22 shards done; worker \d .*: [\d,]+ number/s", line) for line in lines)
    assert any(re.search(r"worker \d .*: s\d+ computed", line) for line in lines)


def test_a_worker_that_is_killed_is_replaced_and_its_shard_done_again(
    settings: ComputeSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RayEngine(settings, 1).workers(Opened(tmp_path), LOG) as workers:
        found = outcomes(workers, ["once:2", "a:1", "b:3", "c:4"])
    assert {shard: float(stored["numbers"]) for shard, stored in found.items()} == {
        "a:1": 2.0,
        "once:2": 4.0,
        "b:3": 6.0,
        "c:4": 8.0,
    }
    assert any("was lost; once:2 is handed out again" in record.getMessage() for record in caplog.records)
    read = sorted(file.name.split("-")[1] for file in tmp_path.glob("read-*"))
    assert read == ["a", "b", "c", "once", "once"]


def test_a_shard_that_kills_every_worker_is_left_as_failed_and_the_others_are_done(
    settings: ComputeSettings, tmp_path: Path
) -> None:
    patient = settings.model_copy(update={"attempts": 2})
    with RayEngine(patient, 1).workers(Opened(tmp_path), LOG) as workers:
        found = outcomes(workers, ["deadly:2", "a:1", "b:3"])
    assert float(found["b:3"]["numbers"]) == 6.0
    assert isinstance(found["deadly:2"], LorifError)
    assert re.match(r"deadly:2: 2 workers that had it in hand were lost.*`compute\.attempts`", str(found["deadly:2"]))


def test_a_state_that_cannot_be_opened_ends_the_run(settings: ComputeSettings, tmp_path: Path) -> None:
    with (
        RayEngine(settings, 1).workers(Opened(tmp_path / "absent"), LOG) as workers,
        pytest.raises(FileNotFoundError),
    ):
        outcomes(workers, ["a:1", "b:2"])


def test_what_no_node_can_hold_is_refused(settings: ComputeSettings, tmp_path: Path) -> None:
    asking = settings.model_copy(update={"gpus": 1.0, "workers": None})
    with (
        pytest.raises(
            SettingsError, match=r"no node .* with 1 CPUs, 1 GPUs: the cluster has 3 nodes with 2 CPUs, 0 GPUs"
        ),
        RayEngine(asking, 1).workers(Opened(tmp_path), LOG),
    ):
        pass


def ray_workers() -> list[psutil.Process]:
    """The processes of the cluster's workers of ours, from their titles."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word.startswith("ray::RayWorker") for word in process.info["cmdline"] or ())
    ]


def raylets(cluster: Any) -> list[Any]:
    """The nodes that can be lost: not that which this process is connected through."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    return [node for node in cluster.worker_nodes if node.any_processes_alive() and node.node_id != own]


class Killer(threading.Thread):
    """Kills, with SIGKILL, a worker or a whole node's raylet now and then, as a seed says, and adds a node for each."""

    def __init__(self, cluster: Any, seed: int, seconds: float, most: int) -> None:
        super().__init__(daemon=True)
        self.cluster, self.random, self.seconds, self.most = cluster, random.Random(seed), seconds, most
        self.killed = {"worker": 0, "raylet": 0}
        self.ended = threading.Event()

    def run(self) -> None:
        while sum(self.killed.values()) < self.most and not self.ended.wait(
            self.random.uniform(0.5, 1.5) * self.seconds
        ):
            if self.random.random() < 0.2:
                node = self.random.choice(raylets(self.cluster))
                node.kill_raylet()
                self.killed["raylet"] += 1
                self.cluster.worker_nodes.discard(node)
                node.kill_all_processes(check_alive=False, allow_graceful=False)
                self.cluster.add_node(num_cpus=1)
            elif found := ray_workers():
                os.kill(self.random.choice(found).pid, signal.SIGKILL)
                self.killed["worker"] += 1


def test_a_project_under_kills_ends_with_the_tables_of_an_undisturbed_one(
    settings: ComputeSettings, cluster: Any, ekfac_project: TinyProject, tmp_path: Path
) -> None:
    with private_copy(ekfac_project, tmp_path) as copied:
        for name in ("gradient_factors", "fisher_sums", "ekfac_preconditioners", "query_scores", "query_summaries"):
            shutil.rmtree(Path(copied.lake.root, name), ignore_errors=True)
        project = copied.with_settings(compute=settings.model_dump())
        killer = Killer(cluster, seed=19, seconds=4.0, most=int(os.environ.get("LORIF_TEST_KILLS", "6")))
        killer.start()
        project.update()
        killer.ended.set()
        killer.join()
        assert sum(killer.killed.values()) > 0
        assert_same_tables(project.lake, ekfac_project.lake)
        rows = project.table(GRADIENT_FACTORS)
        assert rows.group_by("checkpoint", "shard").len()["len"].to_list() == [12] * len(CHECKPOINTS) * len(SHARDS)


def test_fifty_kills_repeat_at_most_the_shard_that_each_lost_worker_had_in_hand(
    settings: ComputeSettings, cluster: Any, tmp_path: Path
) -> None:
    shards = [f"s{number}:{number}" for number in range(300)]
    killer = Killer(cluster, seed=7, seconds=2.0, most=50)
    stored: list[str] = []
    with RayEngine(settings, 1).workers(Opened(tmp_path), LOG) as workers:
        killer.start()
        for shard, outcome in workers.map_shards(Lasting(seconds=0.4), shards, lambda done: done):
            stored.append(shard)
            assert float(outcome.result()["numbers"]) == 2.0 * int(shard.partition(":")[2])
        killer.ended.set()
        killer.join()
    assert sorted(stored) == sorted(shards), "each is committed, and once"
    begun = len(list(tmp_path.glob("begun-*")))
    assert begun - len(shards) <= sum(killer.killed.values()) + killer.killed["raylet"]
    LOG.warning(f"{killer.killed}, {begun - len(shards)} of {len(shards)} shards begun again")


def test_a_step_that_is_killed_goes_on_and_loses_nothing(settings: ComputeSettings, tmp_path: Path) -> None:
    shards, kills, chance = 40, 4, random.Random(3)
    command = [sys.executable, "-m", "tests.compute.ray_step", settings.address, str(tmp_path), str(shards)]
    for _ in range(kills):
        # It is killed at a moment of its work, wherever that is.
        wanted = min(shards - 1, len(committed(tmp_path)) + chance.randint(1, 6))
        with (tmp_path / "step.log").open("ab") as log:
            step = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        while len(committed(tmp_path)) < wanted:
            assert step.poll() is None, (tmp_path / "step.log").read_text(errors="replace")[-3_000:]
            time.sleep(0.02)
        step.kill()
        step.wait()
    subprocess.run(command, cwd=ROOT, check=True)
    assert sorted(committed(tmp_path)) == sorted(f"s{number}" for number in range(shards)), (
        "each is committed, and once"
    )
    begun = len(list(tmp_path.glob("begun-*")))
    # Of each of two workers, the one in hand, and one that was done and not committed yet.
    assert begun - shards <= kills * 2 * 2
