"""The demo's graph on three nodes of Ray, with the lake in an object store and all records in Postgres, and one node lost.

The same is computed without them, by one process of this machine, and every table is compared.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import dagster as dg
import tomlkit
from rich.console import Console
from rich.table import Table

from lorif_assets.automation.dagster_home import HOME_VARIABLE, make_home
from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE
from lorif_assets.demo.cluster.comparison import TableComparison, compared
from lorif_assets.demo.cluster.nodes import RayNodes, ray_nodes
from lorif_assets.demo.cluster.services import Database, ended, object_store, postgres, require_programs
from lorif_assets.errors import LorifError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake

_FILES, _ROWS = 2, 100
"""Of the demo's data, and to a shard."""
_LOOK_SECONDS = 1.0
_MARK = ".cluster-demo"
_DAGSTER, _MLFLOW = "dagster", "mlflow"
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN")
_ON_POSTGRES = """
storage:
  postgres:
    postgres_url:
      env: DAGSTER_POSTGRES_URL
"""
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "TMPDIR", "XDG_CACHE_HOME")


@dataclass(frozen=True)
class Stage:
    """A run of the whole graph: its lake, and the environment of its process."""

    lake: Lake
    home: Path
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Cluster:
    """Where the graph runs on a cluster, while that is there."""

    stage: Stage
    nodes: RayNodes
    database: Database


def run_cluster_demo(demo: Path, directory: Path, console: Console) -> bool:
    """Run the graph of part of a demo on a cluster and without one, and return whether all tables agree.

    Args:
        demo: folder of a project whose data, checkpoints and queries are below it.
        directory: where it works; what an earlier one left there is removed first.
        console: where to print.

    Raises:
        LorifError: something is not installed, the demo is not finished, or a run failed.
    """
    require_programs()
    directory = directory.absolute()
    copy_project(demo, directory)
    with _ending_in_order(), cluster(directory) as started:
        console.print(
            f"three nodes of Ray at {started.nodes.address}, Postgres, and the lake in {started.stage.lake.root}"
        )
        on_cluster, lost = _run_and_lose_a_node(started, directory, console)
        again = _handed_out_again(started)
        alone = local_stage(directory)
        here = _run(alone, directory / "alone.log", console, "the same in one process, without any of them")
        tables = list(compared(alone.lake, started.stage.lake))
        told = places_that_tell(started, directory)
    console.print(_table(tables))
    console.print(f"{lost}; {again}")
    console.print(f"on the cluster {on_cluster:.0f} s, in one process of one thread {here:.0f} s")
    agree = bool(tables) and all(table.agrees for table in tables)
    console.print("every table agrees" if agree else "[red]the tables do not agree[/]")
    console.print(
        f"[red]credentials stand in {', '.join(told)}[/]" if told else "no log and no record tells a credential"
    )
    return agree and not told


def copy_project(demo: Path, directory: Path) -> None:
    """Copy a part of a project's data, its checkpoints, its queries and its settings.

    Raises:
        LorifError: it is not there, or the directory holds something else.
    """
    if directory.exists() and any(directory.iterdir()) and not (directory / _MARK).exists():
        raise LorifError(f"{directory} is not empty, and no demo on a cluster made it; choose another with --directory")
    missing = [name for name in ("data", "checkpoints", "queries", CONFIG_NAME) if not (demo / name).exists()]
    if missing:
        raise LorifError(f"{demo} holds no finished demo: {missing[0]} is missing; run `lorif demo` first")
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "data").mkdir(parents=True)
    (directory / _MARK).touch()
    for file in sorted(path for path in (demo / "data").iterdir() if not path.name.startswith("."))[:_FILES]:
        shutil.copy(file, directory / "data")
    for name in ("checkpoints", "queries"):
        shutil.copytree(demo / name, directory / name)
    settings = tomlkit.parse((demo / CONFIG_NAME).read_text())
    for source in settings.get("sources", ()):
        source["rows_per_shard"] = _ROWS
    (directory / CONFIG_NAME).write_text(tomlkit.dumps(settings))


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """Start Postgres, an object store and three nodes of Ray, and stop them in the end.

    Raises:
        LorifError: one of them does not start.
    """
    with ExitStack() as stack:
        database = stack.enter_context(postgres((_DAGSTER, _MLFLOW)))
        bucket = stack.enter_context(object_store(directory))
        # What is in it may be asked for by whoever has the token alone.
        shared = {
            **_environment(),
            **bucket.environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        nodes = stack.enter_context(ray_nodes({**shared, "RAY_USAGE_STATS_ENABLED": "0"}, directory / "ray.log"))
        home = directory / "dagster_home"
        make_home(home)
        with (home / "dagster.yaml").open("a") as settings:
            settings.write(_ON_POSTGRES)
        environment = {
            **shared,
            CONFIG_VARIABLE: str(directory / CONFIG_NAME),
            HOME_VARIABLE: str(home),
            "DAGSTER_POSTGRES_URL": database.url(_DAGSTER),
            "LORIF_TRACKING__URI": database.url(_MLFLOW),
            "LORIF_LAKE__ROOT": bucket.root,
            "LORIF_COMPUTE__ENGINE": "ray",
            "LORIF_COMPUTE__ADDRESS": nodes.address,
        }
        yield Cluster(Stage(Lake(bucket.root, bucket.environment), home, environment), nodes, database)


def local_stage(directory: Path) -> Stage:
    """Return the run in one process of this machine: a lake in a folder, Dagster on SQLite, and no tracking."""
    home = directory / "dagster_home_alone"
    make_home(home)
    lake = Lake(str(directory / "lake"))
    environment = {
        **_environment(),
        CONFIG_VARIABLE: str(directory / CONFIG_NAME),
        HOME_VARIABLE: str(home),
        "LORIF_LAKE__ROOT": lake.root,
        "LORIF_TRACKING__URI": "none",
    }
    return Stage(lake, home, environment)


@contextmanager
def materializing(stage: Stage, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Start `lorif materialize` in a process of its own, which ends with the block at the latest."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lorif_assets", "materialize"],
            env=dict(stage.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        ended(process)


def places_that_tell(started: Cluster, directory: Path) -> list[str]:
    """Return the databases and the files of the directory in which a password, a key or a token of the cluster stands."""
    secrets_of_it = [started.database.password, *(started.stage.environment[name] for name in _SECRETS)]
    records: dict[str, Callable[[], str]] = {
        f"{name}'s database": partial(started.database.content, name) for name in (_DAGSTER, _MLFLOW)
    }
    files = [path for path in directory.rglob("*") if path.is_file()]
    records |= {str(path): partial(path.read_text, errors="replace") for path in files}
    return [place for place, read in records.items() if _tells(read(), secrets_of_it)]


def _tells(text: str, hidden: Sequence[str]) -> bool:
    return any(secret in text for secret in hidden)


def shards_stored(lake: Lake) -> int:
    """Return the number of shards whose factors are there, each checkpoint's counted."""
    rows = lake.read(GRADIENT_FACTORS, ["checkpoint", "shard"])
    return rows.unique().height


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, so that what it has started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _environment() -> dict[str, str]:
    """Return what every process has: one thread each, so that all sum in the same order, and this project to import."""
    known = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    paths = [path for path in sys.path if path]
    return {**known, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), "DAGSTER_DISABLE_TELEMETRY": "yes"}


def _run_and_lose_a_node(started: Cluster, directory: Path, console: Console) -> tuple[float, str]:
    lost: list[str] = []

    def kill_in_the_middle() -> None:
        if not lost and (stored := shards_stored(started.stage.lake)):
            name = started.nodes.kill_one()
            lost.append(f"the node {name[:8]} was killed; shards whose factors were stored by then: {stored}")
            console.print(lost[0])

    seconds = _run(started.stage, directory / "cluster.log", console, "the graph on the cluster", kill_in_the_middle)
    if not lost:
        raise LorifError("the run on the cluster ended before a node could be killed")
    return seconds, lost[0]


def _run(stage: Stage, log: Path, console: Console, title: str, look: Callable[[], None] = lambda: None) -> float:
    console.print(f"{title} (log: {log})", soft_wrap=True)
    begun = time.monotonic()
    with materializing(stage, log) as process:
        while process.poll() is None:
            time.sleep(_LOOK_SECONDS)
            look()
    if process.returncode:
        raise LorifError(f"the run failed; the end of {log} says: {log.read_text(errors='replace')[-2_000:]}")
    return time.monotonic() - begun


def _handed_out_again(started: Cluster) -> str:
    """Return in words what the runs' logs say of lost workers."""
    lines = [line for line in _run_lines(started) if "was lost" in line]
    again = sum("handed out again" in line for line in lines)
    return f"workers lost with it: {len(lines)}, shards handed out again: {again}"


def _run_lines(started: Cluster) -> list[str]:
    with dagster_instance(started) as instance:
        return [entry.user_message for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]


@contextmanager
def dagster_instance(started: Cluster) -> Iterator[dg.DagsterInstance]:
    """Open the cluster's instance of Dagster."""
    name = "DAGSTER_POSTGRES_URL"
    before = os.environ.get(name)
    os.environ[name] = started.database.url(_DAGSTER)
    try:
        with dg.DagsterInstance.from_config(str(started.stage.home)) as instance:
            yield instance
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _table(tables: Sequence[TableComparison]) -> Table:
    found = Table(title="the cluster's tables beside those of one process", title_justify="left")
    found.add_column("table")
    found.add_column("rows", justify="right")
    found.add_column("equal")
    for table in tables:
        found.add_row(table.table, f"{table.rows:,}", str(table), style=None if table.agrees else "red")
    return found
