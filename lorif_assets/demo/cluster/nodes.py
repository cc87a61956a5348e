"""Nodes of a Ray cluster, all in this machine, for the time of a `with` block; one of them can be killed.

They are started by a process of their own, `python -m lorif_assets.demo.cluster.nodes`, with the environment that workers are
to have: Ray reads some of it once, when it is imported. It takes the line "kill", answers with a line, and stops the nodes when
its input ends, also where who started it was killed.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from lorif_assets.compute.ray_worker import RayWorker
from lorif_assets.errors import LorifError

_KILL = "kill"
# How soon a node that is gone is taken for lost.
_HEALTH = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 5,
    "health_check_timeout_ms": 2_000,
    "health_check_initial_delay_ms": 0,
}
_WORKER_NODES = 2
_STARTS = 5
_WORKER_TITLE = f"ray::{RayWorker.__name__}"


@dataclass(frozen=True)
class RayNodes:
    """A head that holds no worker, and two nodes."""

    address: str
    """Where the head is."""
    process: "subprocess.Popen[str]"
    log: Path

    def kill_one(self) -> str:
        """Kill all processes of a node by SIGKILL, have another one take its place, and return the lost one's name."""
        _input(self.process).write(f"{_KILL}\n")
        _input(self.process).flush()
        return _answer(self.process, self.log)


@contextmanager
def ray_nodes(
    environment: Mapping[str, str], log: Path, *, cpus: int = 1, dashboard_port: int | None = None
) -> Iterator[RayNodes]:
    """Start the nodes with these variables in their environment, and stop them in the end.

    Args:
        environment: all of it.
        log: where what they say is written.
        cpus: that a node with workers offers, whether the machine has them or not.
        dashboard_port: where jobs are taken, by the dashboard; None: there is none.

    Raises:
        LorifError: they do not start.
    """
    port = [] if dashboard_port is None else [str(dashboard_port)]
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", __spec__.name, str(cpus), *port],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            # Ctrl-C in a terminal is for who started it, who then ends it in order.
            start_new_session=True,
        )
    try:
        yield RayNodes(_answer(process, log), process, log)
    finally:
        started = _descendants(process)
        _input(process).close()
        process.wait()
        # What it could not stop, as where it failed itself.
        for one in started:
            with suppress(psutil.Error):
                one.kill()


def _descendants(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        return []


def _input(process: "subprocess.Popen[str]") -> IO[str]:
    if process.stdin is None:
        raise TypeError("expected a process whose input is a pipe")
    return process.stdin


def _answer(process: "subprocess.Popen[str]", log: Path) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise LorifError(f"the nodes of Ray did not start, or stopped: {log.read_text(errors='replace')[-2_000:]}")
    return line.strip()


def _serve(answers: IO[str], cpus: int, dashboard_port: int | None) -> None:
    """Start the nodes, answer each line, and stop them when there is no further one."""
    from ray.cluster_utils import Cluster

    dashboard = {"include_dashboard": dashboard_port is not None, "dashboard_port": dashboard_port}
    # Its hooks are for processes that end in other ways than this one.
    cluster = Cluster(shutdown_at_exit=False)
    try:
        add_node(cluster, num_cpus=0, _system_config=_HEALTH, **dashboard)
        for _ in range(_WORKER_NODES):
            add_node(cluster, num_cpus=cpus)
        print(cluster.address, file=answers, flush=True)
        for _ in sys.stdin:
            print(_killed(cluster, cpus), file=answers, flush=True)
    finally:
        cluster.shutdown()


def _killed(cluster: Any, cpus: int) -> str:
    # One that is at work, where there is one.
    lost = max(cluster.worker_nodes, key=lambda node: (_holds_worker(node), str(node.node_id)))
    lost.kill_raylet()
    cluster.worker_nodes.discard(lost)
    # Its workers go with it, as on a machine that is lost.
    lost.kill_all_processes(check_alive=False, allow_graceful=False)
    add_node(cluster, num_cpus=cpus)
    return str(lost.node_id)


def add_node(cluster: Any, **arguments: Any) -> None:
    """Add a node to a cluster of Ray's `cluster_utils`, at the fifth attempt at the latest."""
    for attempts_left in reversed(range(_STARTS)):
        try:
            cluster.add_node(**arguments)
        except Exception:
            # Ray gives a node thirty seconds, which are few on a busy machine.
            if not attempts_left:
                raise
        else:
            return


def _holds_worker(node: Any) -> bool:
    (raylet,) = node.all_processes["raylet"]
    with suppress(psutil.Error):
        children = psutil.Process(raylet.process.pid).children(recursive=True)
        return any(word.startswith(_WORKER_TITLE) for child in children for word in child.cmdline())
    return False


if __name__ == "__main__":
    # What libraries print belongs in the log.
    _answers, sys.stdout = sys.stdout, sys.stderr
    _cpus, *_port = map(int, sys.argv[1:])
    _serve(_answers, _cpus, _port[0] if _port else None)
