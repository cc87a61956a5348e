"""A small project on a cluster that loses a node: the tables of one process, and nothing that is left running."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from lorif_assets.demo.cluster import run, services
from lorif_assets.errors import LorifError
from tests.conftest import _EKFAC, _SVD, write_tiny_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a small project of which nothing is computed."""
    root = tmp_path / "project"
    root.mkdir()
    write_tiny_project(root)
    file = root / "lorif.toml"
    file.write_text(file.read_text().replace(_SVD, _EKFAC).replace('checkpoints = "all"', 'checkpoints = "newest"'))
    return root


@pytest.fixture
def programs() -> None:
    try:
        services.require_programs()
    except LorifError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """After the test no process has the test's folder or the store's credentials in its environment or command."""
    yield
    left = [
        process.info
        for process in psutil.process_iter(["pid", "cmdline", "environ"])
        if process.pid != os.getpid()
        and str(tmp_path) in " ".join([*(process.info["cmdline"] or ()), *(process.info["environ"] or {}).values()])
    ]
    own = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    assert not left
    assert not [child.cmdline() for child in own if {"raylet", "gcs_server", "postgres"} & {child.name()}]


@pytest.mark.slow
@pytest.mark.usefixtures("programs", "nothing_is_left")
def test_a_graph_on_a_cluster_that_loses_a_node_ends_with_the_tables_of_one_process(
    project: Path, tmp_path: Path
) -> None:
    console = Console(record=True, width=160)
    agree = run.run_cluster_demo(project, tmp_path / "cluster", console)
    said = console.export_text()
    assert agree, said
    assert "was killed; shards whose factors were stored by then: " in said
    for table in ("gradient_factors", "ekfac_preconditioners", "kfac_bases"):
        (line,) = [line for line in said.splitlines() if f" {table} " in line]
        assert "bit for bit" in line
    assert any(" query_scores " in line for line in said.splitlines())
    assert "no log and no record tells a credential" in said


@pytest.mark.slow
@pytest.mark.usefixtures("programs", "nothing_is_left")
def test_an_interrupt_leaves_nothing_running(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "shards_stored", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run_cluster_demo(project, tmp_path / "cluster", Console(record=True))


SERVING = """
import sys, time
from pathlib import Path
from lorif_assets.demo.cluster.services import _served, _watched
folder = Path(sys.argv[1])
lasting = [sys.executable, "-c", "import time; time.sleep(3_600)"]
with _served(lasting, folder / "log", lambda: True) as process, _watched(process, folder):
    print(process.pid, flush=True)
    time.sleep(3_600)
"""


def is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended; what nobody asks after, the system may let be a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_of_a_demo_that_is_killed_ends_and_its_folder_goes(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    command = [sys.executable, "-c", SERVING, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        server = psutil.Process(int(demo.stdout.readline()))
        demo.kill()
    while is_alive(server) or folder.exists():
        time.sleep(0.05)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_spec", lambda name: None)
    with pytest.raises(LorifError, match=r"needs dagster-postgres, psycopg2-binary, moto\[server\], ray"):
        services.require_programs()


def test_without_postgres_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(services, "find_spec", lambda name: name)
    monkeypatch.setattr(services, "_DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LorifError, match="apt-get install postgresql"):
        services.require_programs()


def test_a_demo_that_is_not_finished_is_named(tmp_path: Path) -> None:
    with pytest.raises(LorifError, match="holds no finished demo: data is missing"):
        run.copy_project(tmp_path, tmp_path / "cluster")


def test_a_folder_of_somebody_else_is_left_alone(project: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    with pytest.raises(LorifError, match="is not empty, and no demo on a cluster made it"):
        run.copy_project(project, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").exists()
    for _ in range(2):
        run.copy_project(project, tmp_path / "cluster")
    assert (tmp_path / "cluster/lorif.toml").is_file()
