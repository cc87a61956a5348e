"""The engine `ray` on a cluster of three nodes in this machine: what is lost is done again, and nothing twice."""

import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from lorif_assets.compute.ray_engine import RayEngine
from lorif_assets.compute.shard_work import Step, result, results
from lorif_assets.config.compute import ComputeSettings
from lorif_assets.demo.cluster.nodes import add_node
from lorif_assets.errors import LorifError, SettingsError, TableError, UnsoundQueryError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from tests.compute.kills import Kill, kill, killing, shuffled
from tests.compute.ray_step import SHARD_SECONDS, stored
from tests.compute.ray_work import Doubling, Opened, doubled, pid
from tests.compute.same_tables import assert_same_tables
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject, private_copy

pytest.importorskip("ray", reason="needs ray")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SEED, STEP_SHARDS = 19, 40
FIFTY = {"worker": 36, "raylet": 9, "step": 5}
LOG = logging.getLogger("test.ray")
# How soon a node that is gone is taken for lost; one that only answers late, on a busy machine, is not.
_HEALTH = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "health_check_timeout_ms": 10_000,
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
        # Its hooks are signal handlers, which only the main thread may set, and nodes are added from another.
        started = Cluster(shutdown_at_exit=False)
        add_node(started, num_cpus=0, include_dashboard=False, _system_config=_HEALTH)
        for _ in range(2):
            add_node(started, num_cpus=1)
        yield started
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def settings(cluster: Any) -> ComputeSettings:
    while len([node for node in cluster.worker_nodes if node.any_processes_alive()]) < 2:
        add_node(cluster, num_cpus=1)
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


def test_a_project_under_kills_ends_with_the_tables_of_an_undisturbed_one(
    settings: ComputeSettings, cluster: Any, ekfac_project: TinyProject, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    kinds, rounds, made = shuffled({"worker": 8, "raylet": 2}, chance), 0, 0
    while kinds:
        rounds += 1
        with private_copy(ekfac_project, tmp_path / f"run-{rounds}") as copied:
            for name in ("gradient_factors", "fisher_sums", "ekfac_preconditioners", "query_scores", "query_summaries"):
                shutil.rmtree(Path(copied.lake.root, name), ignore_errors=True)
            project = copied.with_settings(compute=settings.model_dump())
            with killing(kinds, cluster, chance, seconds=6.0) as kills:
                project.update()
            made += len(kills)
            assert_same_tables(project.lake, ekfac_project.lake)
            rows = project.table(GRADIENT_FACTORS)
            assert rows.group_by("checkpoint", "shard").len()["len"].to_list() == [12] * len(CHECKPOINTS) * len(SHARDS)
    assert made == 10
    LOG.warning(f"{made} kills in {rounds} runs")


def test_fifty_kills_of_workers_raylets_and_steps_repeat_at_most_what_was_in_hand_and_lose_nothing(
    settings: ComputeSettings, cluster: Any, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    kinds, made, again = shuffled(FIFTY, chance), Counter[str](), 0
    undisturbed, *runs = (tmp_path / name for name in ("undisturbed", *(f"run-{number}" for number in range(50))))
    assert under_kills([], cluster, chance, settings.address, undisturbed) == []
    expected = stored(undisturbed).select("shard", "double").sort("shard")
    assert expected.height == STEP_SHARDS
    for folder in runs:
        kills = under_kills(kinds, cluster, chance, settings.address, folder)
        made += Counter(kill.kind for kill in kills)
        assert_frame_equal(stored(folder).select("shard", "double").sort("shard"), expected)
        again += assert_only_what_was_in_hand_was_repeated(folder, kills)
        if not kinds:
            break
    assert made == FIFTY
    LOG.warning(f"{made}: {again} shards were begun again")


def under_kills(kinds: list[str], cluster: Any, chance: random.Random, address: str, folder: Path) -> list[Kill]:
    """Have a step store its shards, killing what is named as long as it is at work, and return what was killed.

    What is killed is removed from the list; a step that was killed is started again.
    """
    folder.mkdir()
    kills: list[Kill] = []
    command = [sys.executable, "-m", "tests.compute.ray_step", address, str(folder), str(STEP_SHARDS)]
    while True:
        with (folder / "step.log").open("ab") as log:
            step = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        known = len(begun(folder))
        while step.poll() is None:
            # Each comes while a shard is in hand that was begun since the last one, at a moment of the shard's time.
            if kinds and len(begun(folder)) > known:
                time.sleep(chance.uniform(0, SHARD_SECONDS))
                if made := kill(kinds[0], cluster, chance, step):
                    kills.append(made)
                    kinds.pop(0)
                    known = len(begun(folder))
            time.sleep(0.02)
        if step.returncode != -signal.SIGKILL:
            assert step.returncode == 0, (folder / "step.log").read_text(errors="replace")[-3_000:]
            return kills


def begun(folder: Path) -> list[tuple[str, int, int]]:
    """Each time that a shard was begun: the shard, the worker's process, and when."""
    found = [file.name.split("-")[1:] for file in folder.glob("begun-*")]
    return [(shard, int(worker), int(moment)) for shard, worker, moment in found]


def assert_only_what_was_in_hand_was_repeated(folder: Path, kills: list[Kill]) -> int:
    """Hold that of each worker at most one shard was repeated, and of one that was lost with its step that which waited too.

    Returns:
        How many were begun again.
    """
    storing = dict(stored(folder).select("shard", "worker").iter_rows())
    again = [(worker, moment) for shard, worker, moment in begun(folder) if storing[shard] != worker]
    for made in kills:
        for lost in made.workers:
            moments = [moment for worker, moment in again if worker == lost]
            # A worker notices within a second that its raylet or step is gone, and may begin one more meanwhile.
            before = [moment for moment in moments if made.kind == "worker" or moment < made.nanoseconds]
            assert len(before) <= (2 if made.kind == "step" else 1), made
            assert len(moments) - len(before) <= 1, made
    assert {worker for worker, _ in again} <= {lost for made in kills for lost in made.workers}, (
        "none that was not lost"
    )
    return len(again)
