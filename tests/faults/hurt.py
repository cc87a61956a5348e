"""A process that brings a project up to date, and what happens to it meanwhile: killed, out of space, out of time."""

import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_PRELOADED = ["dagster", "torch", "transformers", "polars", "deltalake", "lorif_assets.assets.graph"]
_YEAR = 365 * 24 * 3_600


class Hurt(StrEnum):
    """What happens to the process."""

    NOTHING = "nothing"
    KILL = "kill -9"
    FULL = "disk full"
    CLOCK = "clock jump"
    TRACKING = "tracking away"


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, negative where a signal ended it, and the seconds that it ran."""

    code: int
    seconds: float


def updated(root: Path, hurt: Hurt, rng: random.Random, seconds: float) -> Outcome:
    """Bring a project up to date in a process of its own, and hurt it.

    Args:
        root: the project.
        hurt: how.
        rng: decides when.
        seconds: that an update takes; a kill comes at any moment of them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    limit = rng.randrange(200, 200_000) if hurt is Hurt.FULL else None
    shift = rng.choice((-1, 1)) * rng.uniform(60, _YEAR) if hurt is Hurt.CLOCK else 0.0
    process = context.Process(target=_update, args=(root, limit, shift, hurt is Hurt.TRACKING))
    started = time.monotonic()
    process.start()
    if hurt is Hurt.KILL:
        process.join(rng.uniform(0.0, seconds))
        _kill(process)
    process.join()
    assert process.exitcode is not None
    return Outcome(process.exitcode, time.monotonic() - started)


def _kill(process: ForkServerProcess) -> None:
    if process.is_alive():
        process.kill()


def _update(root: Path, most_bytes: int | None, shift: float, tracking_is_away: bool) -> None:
    # What it says is of interest where it fails without being hurt.
    log = (root / "update.log").open("a")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    if shift:
        _shift_the_clock(shift)
    if most_bytes is not None:
        # Of any one file: writing more fails, as it does on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    import dagster as dg
    import torch

    from lorif_assets.assets.graph import ASSETS
    from lorif_assets.automation.materialization import bring_up_to_date
    from lorif_assets.config.settings import load_settings
    from lorif_assets.errors import LorifError
    from lorif_assets.project import Project

    torch.set_num_threads(1)
    if tracking_is_away:
        os.environ["LORIF_TRACKING__URI"] = "http://127.0.0.1:9"
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        try:
            for _ in bring_up_to_date(instance, ASSETS, Project.of(load_settings(root / "lorif.toml"))):
                pass
        except LorifError as error:
            sys.exit(f"{type(error).__name__}: {error}")


def _shift_the_clock(seconds: float) -> None:
    clock = time.time
    time.time = lambda: clock() + seconds
