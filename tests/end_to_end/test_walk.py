"""The mission with real clicks: attribute a checkpoint in Dagster's UI, have a new one attributed, find both in MLflow.

The pictures of docs/tracking.md are taken on the way, where $WALK_PICTURES names a folder for them.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import CHECKPOINTS, QUERY_SET, free_port, write_tiny_project

pytestmark = pytest.mark.slow

# Nothing is expected to take as long; what hangs ends.
LONGEST = 3_600
EARLY, LATE = CHECKPOINTS


@contextmanager
def served(command: list[str], root: Path, address: str, log: Path) -> Iterator[None]:
    """Run a server until the end of the block, from when it answers; with it end all that it started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LORIF_")}
    environment.pop("DAGSTER_HOME", None)
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=output, stderr=output)
    try:
        end = time.monotonic() + LONGEST
        while not answers(address):
            assert process.poll() is None, log.read_text()[-3_000:]
            assert time.monotonic() < end, log.read_text()[-3_000:]
            time.sleep(0.5)
        yield
    finally:
        family = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        for one in family:
            try:
                one.terminate()
            except psutil.Error:
                continue
        psutil.wait_procs([one for one in family if isinstance(one, psutil.Process)], timeout=30)
        process.wait(60)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=30):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture
def project(tmp_path: Path) -> Iterator[tuple[Path, str, str]]:
    """A project with one checkpoint, a second one that is not saved yet, and the addresses of Dagster and of MLflow."""
    root = tmp_path / "project"
    root.mkdir()
    write_tiny_project(root)
    shutil.move(root / "checkpoints" / LATE, tmp_path / LATE)
    dagster, mlflow = free_port(), free_port()
    file = root / "lorif.toml"
    text = file.read_text().replace(
        '[tracking]\nuri = "none"\n',
        f'[automation]\ninterval_seconds = 5\n\n[addresses]\ndagster = "http://127.0.0.1:{dagster}"\n'
        f'mlflow = "http://127.0.0.1:{mlflow}"\n',
    )
    file.write_text(text)
    program = [sys.executable, "-m"]
    ui = [*program, "lorif_assets", "ui", "--config", str(file), "--port", str(dagster)]
    store = ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--host", "127.0.0.1", "--workers", "1"]
    tracker = [*program, "mlflow", "server", *store, "--port", str(mlflow)]
    with ExitStack() as servers:
        for command, port, path, log in (
            (tracker, mlflow, "health", "mlflow"),
            (ui, dagster, "server_info", "dagster"),
        ):
            address = f"http://127.0.0.1:{port}"
            servers.enter_context(served(command, root, f"{address}/{path}", tmp_path / f"{log}.log"))
        yield root, f"http://127.0.0.1:{dagster}", f"http://127.0.0.1:{mlflow}"


class Walker:
    """A person with a browser."""

    def __init__(self, browser: Any, dagster: str, mlflow: str) -> None:
        self.context = browser.new_context(viewport={"width": 1_280, "height": 760})
        self.context.set_default_timeout(600_000)
        self.page = self.context.new_page()
        self.dagster, self.mlflow = dagster, mlflow

    def patiently(self, act: Callable[..., object]) -> None:
        """Do something with the page; load it again where that does not come about: a busy server leaves one half loaded."""
        from playwright.sync_api import TimeoutError as TooLate

        end = time.monotonic() + LONGEST
        while True:
            try:
                act(timeout=60_000)
            except TooLate:
                assert time.monotonic() < end, f"{self.page.url}: {self.page.inner_text('body')}"
                self.page.reload()
            else:
                return

    def click(self, text: str) -> None:
        self.patiently(self.page.get_by_text(text, exact=True).first.click)

    def sees(self, text: str) -> None:
        self.patiently(self.page.get_by_text(text).first.wait_for)

    def chooses_partition(self, name: str) -> None:
        """Choose it in the launchpad, which lists those that there were when it was loaded."""

        def choose(timeout: float) -> None:
            field = self.page.get_by_placeholder("Partition")
            field.click(timeout=timeout)
            field.fill(name)
            self.page.get_by_text(name, exact=True).first.click(timeout=timeout)

        self.patiently(choose)

    def picture(self, name: str) -> None:
        if folder := os.environ.get("WALK_PICTURES"):
            # Icons and figures come a little later than words.
            self.page.wait_for_timeout(3_000)
            self.page.screenshot(path=Path(folder, f"walk-{name}.png"))

    def follows(self, link: Any) -> None:
        """Click a link that opens a tab."""
        with self.context.expect_page() as opened:
            link.click()
        self.page = opened.value


def attribute_one(person: Walker) -> None:
    person.page.goto(person.dagster)
    person.click("Jobs")
    person.click("attribute_checkpoint")
    person.click("Launchpad")
    person.chooses_partition(EARLY)
    person.picture("launch")
    person.page.get_by_role("button", name="Launch run").click()
    person.page.wait_for_url("**/runs/*")
    person.sees("Success")
    person.page.goto(f"{person.dagster}/runs")
    person.sees("materialize_attribution_report")
    person.sees(f"lorif/checkpoint: {EARLY}")
    person.picture("runs")


def from_the_report_to_mlflow_and_back(person: Walker) -> None:
    person.click("Catalog")
    person.patiently(person.page.get_by_role("link", name="attribution_report").first.click)
    person.sees("mlflow_run")
    person.picture("report")
    person.follows(person.page.locator(f"a[href^='{person.mlflow}']").first)
    person.sees(f"attribution_report {EARLY}|{QUERY_SET}")
    person.picture("mlflow-run")
    run = person.page.get_by_role("link", name="in Dagster").first
    address = run.get_attribute("href")
    person.follows(run)
    assert person.page.url == address
    person.sees("materialize_attribution_report")


def have_new_checkpoints_attributed(person: Walker, root: Path) -> None:
    person.click("Automation")
    row = person.page.locator("[data-index]").filter(has_text="re_attribution_sensor")
    # The first box chooses the row, the second switches the sensor.
    switch = row.locator("label").nth(1)
    person.patiently(switch.click)
    row.locator("input:checked").wait_for(state="attached")
    person.picture("sensor")
    shutil.move(root.parent / LATE, root / "checkpoints" / LATE)
    person.page.goto(f"{person.dagster}/assets/attribution_report?view=partitions")
    person.sees("Materialized (2)")
    person.click("Runs")
    person.sees(f"lorif/checkpoint: {LATE}")
    person.picture("new-checkpoint")


def compare_checkpoints_in_mlflow(person: Walker) -> None:
    person.page.set_viewport_size({"width": 1_500, "height": 760})
    person.page.goto(f"{person.mlflow}/#/experiments/1/runs")
    for name in (EARLY, LATE, "project"):
        person.patiently(person.page.get_by_role("link", name=name, exact=True).first.wait_for)
    person.picture("mlflow-runs")
    person.page.get_by_role("link", name="project", exact=True).first.click()
    person.click("Model metrics")
    person.sees(f"loss_per_token/{QUERY_SET}")
    person.picture("mlflow-chart")


def test_a_person_attributes_checkpoints_in_dagster_and_finds_them_in_mlflow(
    chromium: Any, project: tuple[Path, str, str]
) -> None:
    root, dagster, mlflow = project
    person = Walker(chromium, dagster, mlflow)
    attribute_one(person)
    from_the_report_to_mlflow_and_back(person)
    have_new_checkpoints_attributed(person, root)
    compare_checkpoints_in_mlflow(person)
