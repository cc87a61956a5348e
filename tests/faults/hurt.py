"""A process that brings a project up to date, and what happens to it meanwhile: killed, out of space, out of time."""

import ctypes
import multiprocessing
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import dagster as dg

from tests.faults.absent_tracking import absent_tracking

_PRELOADED = [
    "dagster",
    "torch",
    "transformers.models.gpt2.modeling_gpt2",
    "sentence_transformers",
    "polars",
    "deltalake",
    "mlflow.tracking",
    "matplotlib.pyplot",
    "lorif_assets.assets.graph",
]
_YEAR = 365 * 24 * 3_600
# Version 3 of capset's header; capabilities 1 and 2 pass over the permissions of files (linux/capability.h).
_CAPABILITIES, _OVERRIDES = 0x20080522, 0b110
_PICTURE = b"\x89PNG of nothing"
# Where there is nothing to do, no run of the daemon starts.
_DAEMON_STARTS_WITHIN = 120.0
_DAEMON_RUNS = 40.0


class Hurt(StrEnum):
    """What happens to the process."""

    NOTHING = "nothing"
    KILL = "kill"
    DAEMON = "kill of the daemon and its runs"
    FULL = "disk full"
    READ_ONLY = "lake read-only"
    CLOCK = "clock jump"
    TRACKING = "MLflow away"
    EDITED = "edited meanwhile"


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, negative where a signal ended it, and the assets that it had begun, in order."""

    code: int
    begun: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Orders:
    """What the process that updates does to itself."""

    most_bytes: int | None = None
    clock_shift: float = 0.0
    is_read_only: bool = False
    mlflow: str | None = None


def updated(root: Path, hurt: Hurt, rng: random.Random, edit: Callable[[], None] = lambda: None) -> Outcome:
    """Bring a project up to date in a process of its own, and hurt it.

    A kill, and an edit, come at any moment of the work on one of the assets that are out of date.

    Args:
        root: the project.
        hurt: how.
        rng: decides when.
        edit: changes the project, for `Hurt.EDITED`.
    """
    if hurt is Hurt.DAEMON:
        return _daemon_killed(root, rng)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with absent_tracking(root, rng) if hurt is Hurt.TRACKING else nullcontext() as mlflow:
        orders = _Orders(
            rng.randrange(200, 200_000) if hurt is Hurt.FULL else None,
            rng.choice((-1, 1)) * rng.uniform(60, _YEAR) if hurt is Hurt.CLOCK else 0.0,
            hurt is Hurt.READ_ONLY,
            mlflow,
        )
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_update, args=(root, orders, there))
        process.start()
        there.close()
        begun: list[str] = []
        if hurt in (Hurt.KILL, Hurt.EDITED):
            _await_a_moment(process, here, begun, rng)
            (process.kill if hurt is Hurt.KILL else edit)()
        with suppress(EOFError):
            while True:
                begun.append(here.recv())
        process.join()
    if hurt is Hurt.READ_ONLY:
        _set_writable(root / "lake", writable=True)
    assert process.exitcode is not None
    return Outcome(process.exitcode, begun)


def _await_a_moment(process: ForkServerProcess, assets: Connection, begun: list[str], rng: random.Random) -> None:
    """Wait until the work on the first, second ... asset is under way, or all is done."""
    with suppress(EOFError):
        begun.append(assets.recv())
        while rng.random() < 0.6:
            begun.append(assets.recv())
        # Seldom longer than an asset takes.
        process.join(rng.uniform(0.0, 2.5))


def _daemon_killed(root: Path, rng: random.Random) -> Outcome:
    environment = {**os.environ, "DAGSTER_HOME": str(root / "dagster"), "LORIF_CONFIG": str(root / "lorif.toml")}
    program = Path(sys.executable).with_name("dagster-daemon")
    with (
        (root / "daemon.log").open("ab") as log,
        dg.DagsterInstance.from_config(str(root / "dagster")) as instance,
    ):
        before = datetime.now(UTC)
        daemon = subprocess.Popen(
            [str(program), "run", "-m", "lorif_assets.definitions"],
            cwd=root,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        end = time.monotonic() + _DAEMON_STARTS_WITHIN
        while daemon.poll() is None and not _running(instance, before) and time.monotonic() < end:
            time.sleep(0.5)
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(rng.uniform(0.0, _DAEMON_RUNS))
        subprocess.run(["pkill", "-KILL", "-s", str(daemon.pid)], check=False)
        return Outcome(daemon.wait(), _running(instance, before))


def _running(instance: dg.DagsterInstance, since: datetime) -> list[str]:
    """Return the jobs of the runs that were launched since a moment and are at work."""
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], created_after=since)
    return sorted(run.job_name for run in instance.get_runs(started))


def _update(root: Path, orders: _Orders, begun: Connection) -> None:
    # What it says is of interest where it fails without being hurt.
    log = (root / "update.log").open("a")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    if orders.clock_shift:
        _shift_the_clock(orders.clock_shift)
    if orders.mlflow:
        os.environ["LORIF_TRACKING__URI"] = orders.mlflow
    if orders.is_read_only:
        _obey_permissions()
        _set_writable(root / "lake", writable=False)
    if orders.most_bytes is not None:
        # Of any one file: writing more fails, as it does on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (orders.most_bytes, resource.RLIM_INFINITY))
    import torch

    from lorif_assets.assets.graph import ASSETS
    from lorif_assets.automation.materialization import bring_up_to_date
    from lorif_assets.config.settings import load_settings
    from lorif_assets.errors import LorifError
    from lorif_assets.pages import look
    from lorif_assets.project import Project

    def announce(text: str) -> None:
        if text.endswith("to compute"):
            begun.send(text.split(maxsplit=1)[0])

    torch.set_num_threads(1)
    # Drawing takes longer than all the rest of a report.
    look.png = lambda figure: _PICTURE
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        try:
            for _ in bring_up_to_date(instance, ASSETS, Project.of(load_settings(root / "lorif.toml")), announce):
                pass
        except LorifError as error:
            sys.exit(f"{type(error).__name__}: {error}")


def _shift_the_clock(seconds: float) -> None:
    clock = time.time
    time.time = lambda: clock() + seconds


def _obey_permissions() -> None:
    """Make this process heed the permissions of files even where it runs as root, as in a container."""
    sets = (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.capget(header, sets)
    # Those that are in effect, and those that may be.
    sets[0], sets[1] = sets[0] & ~_OVERRIDES, sets[1] & ~_OVERRIDES
    assert not libc.capset(header, sets), os.strerror(ctypes.get_errno())


def _set_writable(folder: Path, *, writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IWUSR if writable else mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
