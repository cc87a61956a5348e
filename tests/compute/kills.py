"""Kills by SIGKILL on a cluster in this machine: of a worker, of a node's raylet, of the step; each of a process that runs."""

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from lorif_assets.compute.ray_worker import RayWorker
from lorif_assets.demo.cluster.nodes import add_node

_TITLE = f"ray::{RayWorker.__name__}"
_ENDS_WITHIN = 120  # seconds


@dataclass(frozen=True)
class Kill:
    """What was killed, when by the monotonic clock, and the workers, by their process, that were lost with it."""

    kind: str
    nanoseconds: int
    workers: tuple[int, ...]


def shuffled(counts: Mapping[str, int], chance: random.Random) -> list[str]:
    """Return what to kill, one after the other: so many of each kind."""
    kinds = list(Counter(counts).elements())
    chance.shuffle(kinds)
    return kinds


def kill(kind: str, cluster: Any, chance: random.Random, step: "subprocess.Popen[bytes] | None" = None) -> Kill | None:
    """Kill one of a kind, and wait until the workers that are lost with it have ended; None where none runs.

    Args:
        kind: worker, raylet or step.
        cluster: of Ray, in this machine. A node whose raylet is killed leaves it, and another one is added.
        chance: chooses among workers and nodes.
        step: its process.
    """
    nodes = sorted(cluster.worker_nodes, key=lambda node: str(node.node_id))
    node = chance.choice(nodes)
    lost = running_workers([node] if kind == "raylet" else nodes)
    if kind == "worker":
        lost = [chance.choice(lost)] if lost else []
    made = Kill(kind, time.monotonic_ns(), tuple(process.pid for process in lost))
    match kind:
        case "raylet":
            # This waits for its end: as a zombie it would keep its workers alive.
            node.kill_raylet()
            cluster.worker_nodes.discard(node)
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            add_node(cluster, num_cpus=1)
        case "worker":
            try:
                lost[0].kill()
            except (IndexError, psutil.NoSuchProcess):
                return None
        case _:
            if step is None:
                raise ValueError("which step to kill is not said")
            step.kill()
            if step.wait() != -signal.SIGKILL:
                return None
    _, remaining = psutil.wait_procs(lost, timeout=_ENDS_WITHIN)
    if remaining:
        raise TimeoutError(f"lost with a {kind} that was killed, these workers still run: {remaining}")
    return made


@contextmanager
def killing(kinds: list[str], cluster: Any, chance: random.Random, seconds: float) -> Iterator[list[Kill]]:
    """Kill what is named as long as the `with` block lasts, and yield what was killed, which is removed from the names.

    Args:
        kinds: workers and raylets, in their order.
        cluster: of Ray, in this machine.
        chance: chooses among workers and nodes, and how long to wait.
        seconds: at most, before each kill.
    """
    kills: list[Kill] = []
    ended = threading.Event()

    def work() -> None:
        while kinds and not ended.wait(chance.uniform(0, seconds)):
            if made := kill(kinds[0], cluster, chance):
                kills.append(made)
                kinds.pop(0)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield kills
        finally:
            ended.set()
        working.result()


def running_workers(nodes: Sequence[Any]) -> list[psutil.Process]:
    """Return the workers below some nodes' raylets: other clusters of this machine have workers too."""
    below = [process for node in nodes for process in _raylet(node).children(recursive=True)]
    return sorted(filter(_is_worker, below), key=lambda process: process.pid)


def _raylet(node: Any) -> psutil.Process:
    (raylet,) = node.all_processes["raylet"]
    return psutil.Process(raylet.process.pid)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any(word.startswith(_TITLE) for word in process.cmdline())
    except psutil.Error:
        return False
