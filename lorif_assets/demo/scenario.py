"""A recorded scenario: data and checkpoints change under a running daemon, and attributions stay up to date.

It works on a copy of part of the demo's data and models, starts `dagster dev`, changes files the way a trainer and a
data team would, touches nothing else, and prints which partitions were computed after each change.
"""

import json
import shutil
import time
from collections.abc import Collection
from pathlib import Path

import dagster as dg
import polars as pl
from rich.console import Console

from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.registration import register
from lorif_assets.demo.run import PLANTED, QUERY_SET, DemoPaths
from lorif_assets.demo.watched_project import WatchedProject
from lorif_assets.errors import LorifError
from lorif_assets.freshness.discovery import discover
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES
from lorif_assets.pages.number_format import counted
from lorif_assets.project import Project

_ROWS = 60
_FACTORS = "gradient_factors"
_LATER = "step-999999"
_SETTINGS = """\
[[sources]]
name = "docs"
path = "data"
columns = { id = "id", text = "text", metadata = ["topic"] }

[queries]
columns = { id = "id", prompt = "prompt", completion = "completion" }

[recipe]
projection_factor = 8
r = 16
top_k = 20
max_length = 128

[active]
checkpoints = "all"

[automation]
enabled = true
interval_seconds = 3
on_removed = "withdraw"
backoff_seconds = 5
stalled_after_seconds = 45

# A fifth of what so short a run costs would be the import of MLflow.
[tracking]
uri = "none"
"""
_INSTANCE = """\
telemetry:
  enabled: false
run_queue:
  dequeue_interval_seconds: 1
concurrency:
  runs:
    max_concurrent_runs: 2
  pools:
    default_limit: 1
    granularity: op
"""


def run_scenario(directory: Path, demo: Path, console: Console) -> bool:
    """Run the scenario, and return whether the final scores equal a rebuild from scratch.

    Args:
        directory: where it works; emptied first.
        demo: the directory of a finished demo.
        console: where to print.

    Raises:
        LorifError: the demo does not exist, or something did not happen in time.
    """
    source = DemoPaths(demo.absolute())
    if not source.training_summary.is_file():
        raise LorifError(f"{demo} holds no finished demo; run `lorif demo` first")
    shutil.rmtree(directory, ignore_errors=True)
    scenario = WatchedProject(directory.absolute(), source, console)
    _set_up(scenario)
    checkpoints = scenario.root / "checkpoints"
    first, second = sorted(path for path in source.checkpoints.iterdir() if not path.name.startswith("."))
    both = (first.name, second.name)
    try:
        scenario.event(
            "start: two shards, one checkpoint, one query set",
            "everything, once",
            scenario.start,
            factors=_keys([first.name], 0, 1),
        )
        scenario.event(
            "a checkpoint appears half-written, then complete",
            "everything of that checkpoint, nothing of another; nothing while it is incomplete",
            lambda: _write_slowly(scenario, second, checkpoints / second.name),
            factors=_keys([second.name], 0, 1),
        )
        scenario.event(
            "a shard is added",
            "its examples; its factors for each active checkpoint; each layer adds it; scores and reports",
            lambda: _publish(_rows(scenario, 2), scenario.shard(2)),
            factors=_keys(both, 2),
        )
        scenario.event(
            "rows of a shard are edited, edited again right after, and once more while they are being read",
            "the same for that shard, ending with the last edit; factors of no other shard",
            lambda: _edit_in_haste(scenario, 0),
            factors=_keys(both, 0),
        )
        scenario.event(
            "a shard is edited while its factors are being computed",
            "that shard again, once more for the later edit",
            lambda: _edit_during_factors(scenario, 1, first.name),
            factors=_keys(both, 1),
        )
        scenario.event(
            "a shard is withdrawn",
            "no factors; each layer subtracts it; scores and reports",
            lambda: scenario.shard(2).unlink(),
            factors=(),
        )
        scenario.event(
            "a query set is added",
            "its examples, scores and reports",
            lambda: _add_query_set(scenario, PLANTED),
            factors=(),
        )
        scenario.event(
            "killed with SIGKILL during factors; an edit while the daemon is down; started again",
            "the new checkpoint, each shard once, and the edited shard",
            lambda: _kill_and_restart(scenario, first, checkpoints / _LATER),
            factors=_keys((*both, _LATER), 1),
            optional_factors=_keys([_LATER], 0),
        )
        same = _equals_rebuild(scenario)
    finally:
        scenario.kill()
    (scenario.root / "scenario.json").write_text(json.dumps(scenario.events, indent=1))
    return same


def _set_up(scenario: WatchedProject) -> None:
    for folder in ("data", "checkpoints", "queries", "dagster_home"):
        (scenario.root / folder).mkdir(parents=True)
    (scenario.root / "lorif.toml").write_text(_SETTINGS)
    (scenario.dagster_home / "dagster.yaml").write_text(_INSTANCE)
    for number in (0, 1):
        _publish(_rows(scenario, number), scenario.shard(number))
    first = min(path for path in scenario.source.checkpoints.iterdir() if not path.name.startswith("."))
    shutil.copytree(first, scenario.root / "checkpoints" / first.name)
    _add_query_set(scenario, QUERY_SET)


def _keys(checkpoints: Collection[str], *shards: int) -> list[str]:
    return [f"{checkpoint}|docs-{shard:05d}-00000" for checkpoint in checkpoints for shard in shards]


def _rows(scenario: WatchedProject, number: int) -> pl.DataFrame:
    files = sorted(scenario.source.data.glob("*.parquet"))
    return pl.read_parquet(files[number]).head(_ROWS)


def _publish(rows: pl.DataFrame, path: Path) -> None:
    partial = path.with_name(f".{path.name}")
    rows.write_parquet(partial)
    partial.replace(path)


def _edit(scenario: WatchedProject, number: int, words: str) -> None:
    rows = pl.read_parquet(scenario.shard(number))
    edited = pl.when(pl.int_range(pl.len()) < 3).then(pl.col("text") + f"\n{words}").otherwise(pl.col("text"))
    _publish(rows.with_columns(text=edited), scenario.shard(number))


def _write_slowly(scenario: WatchedProject, source: Path, target: Path) -> None:
    target.mkdir()
    weights = (source / "model.safetensors").read_bytes()
    shutil.copy(source / "config.json", target)
    (target / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    moment = time.time()
    time.sleep(15)
    early = [key for keys in scenario.computed_since(moment).values() for key in keys]
    scenario.console.print(f"while half-written: {counted(len(early), 'partition')} computed")
    (target / "model.safetensors").write_bytes(weights)
    shutil.copytree(source, target, dirs_exist_ok=True)


def _edit_in_haste(scenario: WatchedProject, number: int) -> None:
    moment = time.time()
    _edit(scenario, number, "first edit")
    time.sleep(1)
    _edit(scenario, number, "second edit")
    scenario.wait_for(
        lambda: scenario.logged_since(moment, "training_examples", "Started execution of step"), "a read of the shard"
    )
    _edit(scenario, number, "third edit")


def _add_query_set(scenario: WatchedProject, name: str) -> None:
    shutil.copy(scenario.source.queries / f"{name}.jsonl", scenario.root / "queries")


def _edit_during_factors(scenario: WatchedProject, number: int, checkpoint: str) -> None:
    moment = time.time()
    _edit(scenario, number, "edit before")
    (key,) = _keys([checkpoint], number)
    scenario.wait_for(lambda: scenario.logged_since(moment, _FACTORS, f"{key}: read"), f"the factors of {key}")
    _edit(scenario, number, "edit during")


def _kill_and_restart(scenario: WatchedProject, source: Path, target: Path) -> None:
    lake = scenario.project().lake
    shutil.copytree(source, target)
    scenario.wait_for(
        lambda: not lake.read(GRADIENT_FACTORS, ["shard"], checkpoint=target.name).is_empty(), "a first finished shard"
    )
    scenario.kill()
    done = lake.read(GRADIENT_FACTORS, ["shard"], checkpoint=target.name)["shard"].unique().to_list()
    scenario.console.print(f"killed; finished so far: {', '.join(sorted(done))}")
    _edit(scenario, 1, "edit while down")
    scenario.start()


def _equals_rebuild(scenario: WatchedProject) -> bool:
    scenario.console.rule("[bold]the final scores against a rebuild from scratch", align="left")
    watched = scenario.project()
    lake_settings = watched.settings.lake.model_copy(update={"root": "rebuilt_lake"})
    settings = watched.settings.model_copy(update={"lake": lake_settings})
    rebuilt = Project.of(settings)
    # Factors are written in bases that are frozen with a checkpoint's first data: a rebuild is one in the same bases.
    for name in ("kfac_bases", "kfac_bases_tensors"):
        shutil.copytree(Path(watched.lake.root, name), Path(rebuilt.lake.root, name))
    with dg.DagsterInstance.ephemeral() as instance:
        register(instance, discover(rebuilt))
        for _ in bring_up_to_date(instance, ASSETS, rebuilt):
            pass
    keys = ["checkpoint", "query_set", "query_id", "side", "rank"]
    left = watched.lake.read(QUERY_SCORES).sort(keys)
    right = rebuilt.lake.read(QUERY_SCORES).sort(keys)
    if left.height != right.height:
        scenario.console.print(f"[red]{left.height} rows against {right.height}[/]")
        return False
    scale = right["score"].abs().to_numpy().max()
    error = float((left["score"] - right["score"]).abs().to_numpy().max() / scale)
    same_examples = float((left["example_id"] == right["example_id"]).to_numpy().mean())
    scenario.console.print(
        f"{left.height} scores: largest difference {error:.1e} of the largest score; "
        f"{same_examples:.1%} of the ranks name the same example"
    )
    scenario.events.append({"event": "rebuild", "largest_difference": error, "same_examples": same_examples})
    return error < 1e-3
