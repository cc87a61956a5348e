"""Many incremental updates of one project in one process, with vacuums between them: what grows? `make soak`."""

import json
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import click
import dagster as dg
import psutil

from lorif_assets.assets.graph import ASSETS, GRAPH
from lorif_assets.attribution.stored.vacuum import delete, superseded_files
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.superseded_runs import delete_runs, superseded_runs
from lorif_assets.checks import CHECKS
from lorif_assets.config.settings import load_settings
from lorif_assets.project import Project
from tests.conftest import write_tiny_project
from tests.faults.edits import edit_of_same_size
from tests.faults.soundness import differences, unreadable

_MADE = dg.DagsterEventType.ASSET_MATERIALIZATION


@dataclass(frozen=True)
class Sample:
    """What a project and its process take after an update and a vacuum."""

    update: int
    resident_mib: float
    open_files: int
    lake_mib: float
    log_files: int
    runs: int
    events: int
    partitions: int


def soak(root: Path, updates: int, seed: int, between: int, every: int = 1) -> tuple[list[Sample], list[str]]:
    """Bring a project up to date again and again; return a sample at each vacuum, and what was found to be wrong.

    Args:
        root: an empty folder.
        updates: how many.
        seed: of the edits before each.
        between: updates from one vacuum to the next, which keeps nothing that is not needed.
        every: vacuums from one look at all that is stored to the next; the last is always followed by one.
    """
    rng, samples, wrong = random.Random(seed), list[Sample](), list[str]()
    write_tiny_project(root)
    (root / "dagster").mkdir()
    (root / "dagster/dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        for update in range(updates + 1):
            edit = edit_of_same_size(root, rng) if update else "none"
            project = Project.of(load_settings(root / "lorif.toml"))
            for done in bring_up_to_date(instance, ASSETS, project):
                if done.failed or done.waiting:
                    wrong.append(f"update {update} ({edit}): {done.asset} failed for {done.failed}, {done.waiting}")
            if update % between == 0:
                _vacuum(instance, project)
                samples.append(_sample(root, instance, update))
                print(samples[-1], flush=True)
                if len(samples) % every == 0 or update == updates:
                    wrong += [f"after update {update}: {found}" for found in unreadable(root)]
        wrong += [f"at the end: {found}" for found in differences(root, root.with_name("rebuilt"))]
    return samples, wrong


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Return by what factor each quantity grew from the first third of the samples to the last, the first sample aside."""
    later = samples[1:]
    third = max(1, len(later) // 3)
    first, last = ([asdict(sample) for sample in part] for part in (later[:third], later[-third:]))
    names = [name for name in first[0] if name != "update"]
    return {name: median(one[name] for one in last) / max(median(one[name] for one in first), 1e-9) for name in names}


def _vacuum(instance: dg.DagsterInstance, project: Project) -> None:
    delete(project.lake, superseded_files(project.lake, retention_hours=0))
    # Nothing else runs, so that all that is over is old.
    before = datetime.now(UTC) + timedelta(days=1)
    delete_runs(instance, superseded_runs(instance, GRAPH, [check.check_key for check in CHECKS], before))


def _sample(root: Path, instance: dg.DagsterInstance, update: int) -> Sample:
    process = psutil.Process()
    files = [file for file in (root / "lake").rglob("*") if file.is_file()]
    runs = instance.get_runs()
    return Sample(
        update,
        process.memory_info().rss / 2**20,
        process.num_fds(),
        sum(file.stat().st_size for file in files if "_delta_log" not in str(file)) / 2**20,
        sum("_delta_log" in str(file) for file in files),
        len(runs),
        sum(len(instance.all_logs(run.run_id)) for run in runs),
        sum(len(instance.get_latest_storage_id_by_partition(asset.key, _MADE)) for asset in GRAPH),
    )


@click.command()
@click.option("--updates", default=300, show_default=True, help="How many.")
@click.option("--seed", default=0, show_default=True, help="Of the edits.")
@click.option("--between", default=10, show_default=True, help="Updates from one vacuum to the next.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where to write what was measured and found.")
def main(updates: int, seed: int, between: int, output: Path | None) -> None:
    """Update a tiny project many times, and say what grew."""
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    (root := folder / "project").mkdir()
    samples, wrong = soak(root, updates, seed, between)
    minutes = (time.monotonic() - started) / 60
    grown = growth(samples)
    for name, factor in grown.items():
        print(f"{factor:>8.2f} times  {name}")
    print(f"{updates} updates of seed {seed} in {minutes:.0f} min, {len(wrong)} wrong")
    if output:
        about = {"seed": seed, "minutes": minutes, "samples": [asdict(one) for one in samples], "wrong": wrong}
        output.write_text(json.dumps({**about, "growth": grown}, indent=1))
    for found in wrong:
        print(found)
    if wrong:
        raise SystemExit(f"the project is kept in {root}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
