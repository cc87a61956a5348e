"""A project under a running Dagster daemon, watched while it changes: what it computes, and when it is up to date again."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster import AssetRecordsFilter, RunsFilter
from rich.console import Console
from rich.table import Table

from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.jobs import ASSET_JOBS
from lorif_assets.automation.readiness import ready_partitions
from lorif_assets.automation.withdrawal import removed_shards
from lorif_assets.automation.work import IN_FLIGHT
from lorif_assets.config.settings import CONFIG_VARIABLE
from lorif_assets.demo.run import DemoPaths
from lorif_assets.errors import LorifError
from lorif_assets.freshness.view import Freshness
from lorif_assets.project import Project

_FACTORS = "gradient_factors"
_TIMEOUT = 900.0


@dataclass
class WatchedProject:
    """The project that changes, and the events so far."""

    root: Path
    source: DemoPaths
    console: Console
    events: list[dict[str, object]] = field(default_factory=list)
    daemon: "subprocess.Popen[bytes] | None" = None

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance of the scenario alone."""
        return self.root / "dagster_home"

    def project(self) -> Project:
        """Open the project as it is now."""
        return Project.open(self.root / "lorif.toml")

    def shard(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.root / "data" / f"{number:05d}.parquet"

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open Dagster's instance."""
        with dg.DagsterInstance.from_config(str(self.dagster_home)) as instance:
            yield instance

    def start(self) -> None:
        """Start `dagster dev` in a process group of its own."""
        program = Path(sys.executable).with_name("dagster")
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(self.dagster_home),
            CONFIG_VARIABLE: str(self.root / "lorif.toml"),
        }
        log = (self.root / "dagster-dev.log").open("ab")
        self.daemon = subprocess.Popen(  # noqa: S603
            [str(program), "dev", "-m", "lorif_assets.definitions"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        """Kill the daemon and everything that it started, without warning."""
        if self.daemon is None:
            return
        session = str(self.daemon.pid)
        subprocess.run([shutil.which("pkill") or "pkill", "-KILL", "-s", session], check=False)  # noqa: S603
        self.daemon.wait()
        self.daemon = None

    def n_stale(self) -> int:
        """Return the number of partitions that are out of date."""
        project = self.project()
        freshness = Freshness.of(project)
        pending = sum(len(partitions) for _, partitions in ready_partitions(freshness))
        return pending + len(removed_shards(project.lake, freshness.discovered))

    def wait_until_up_to_date(self) -> float:
        """Wait until nothing is stale and nothing runs, and return the seconds that it took.

        Raises:
            LorifError: it took too long.
        """
        started = time.monotonic()
        while time.monotonic() - started < _TIMEOUT:
            time.sleep(4)
            with self.instance() as instance:
                running = instance.get_runs_count(RunsFilter(statuses=IN_FLIGHT))
            if not running and not self.n_stale():
                return time.monotonic() - started
        raise LorifError(f"not everything was up to date after {_TIMEOUT:.0f} s; see {self.root / 'dagster-dev.log'}")

    def wait_for(self, condition: Callable[[], bool], description: str) -> None:
        """Wait until a condition holds.

        Raises:
            LorifError: it took too long.
        """
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > _TIMEOUT:
                raise LorifError(f"waited in vain for {description}")
            time.sleep(0.2)

    def logged_since(self, moment: float, asset: str, words: str) -> bool:
        """Return whether a run of an asset that is in flight has logged something after a moment."""
        with self.instance() as instance:
            runs = instance.get_runs(RunsFilter(statuses=IN_FLIGHT, job_name=ASSET_JOBS[asset].name))
            entries = [entry for run in runs for entry in instance.all_logs(run.run_id)]
        return any(entry.timestamp > moment and words in entry.user_message for entry in entries)

    def computed_since(self, moment: float) -> Mapping[str, list[str]]:
        """Return the partitions of each asset that were computed after a moment, each run counted."""
        with self.instance() as instance:
            return {
                asset.name: sorted(
                    str(record.partition_key)
                    for record in instance.fetch_materializations(
                        AssetRecordsFilter(asset_key=asset.key, after_timestamp=moment), limit=10_000
                    ).records
                    if record.asset_materialization and "left_as_is" not in record.asset_materialization.metadata
                )
                for asset in ASSETS
            }

    def event(
        self,
        title: str,
        contract: str,
        change: Callable[[], None],
        factors: Collection[str],
        optional_factors: Collection[str] = (),
    ) -> None:
        """Make a change, wait until everything is up to date again, and print what was computed.

        `factors` are the partitions of `gradient_factors` that the contract requires, however often; `optional_factors`
        are those that may have been finished before a kill, so that they are not computed again.

        Raises:
            LorifError: it took too long, or the factors of other shards were computed, or not all of these.
        """
        self.console.rule(f"[bold]{title}", align="left")
        moment = time.time()
        change()
        seconds = self.wait_until_up_to_date()
        computed = self.computed_since(moment)
        table = Table(show_header=False, box=None, padding=(0, 2))
        for asset, keys in computed.items():
            if keys:
                table.add_row(asset, str(len(keys)), ", ".join(keys[:4]) + (" ..." if len(keys) > 4 else ""))
        self.console.print(table)
        self.console.print(f"contract: {contract}\nup to date again after {seconds:.0f} s")
        self.events.append({"event": title, "contract": contract, "computed": computed, "seconds": round(seconds)})
        found = set(computed[_FACTORS])
        if found - set(optional_factors) != set(factors) - set(optional_factors):
            raise LorifError(
                f"{title}: factors of {', '.join(sorted(found)) or 'no shard'} were computed; the contract requires "
                f"{', '.join(sorted(factors)) or 'none'}"
            )
