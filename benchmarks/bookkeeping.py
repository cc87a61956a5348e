"""Ten million examples without a model: what is out of date, the ledger, a scan with its top lists, and what memory they take.

The project of `dagster_project`, whose examples and factors, of random numbers, are copies of one shard's, as `copied_shards`
says. Each part runs in a process of its own: `plan` reads the settings and the sources and compares every table with what it
is to be made from, as `lorif materialize --dry-run` does; `ledger` lists the shards that a curvature holds, and what to add to
one of half of them; `scan` streams the factors past the queries, keeps the highest and lowest, and reads their names. The same
is done at a tenth of the rows and of the shards, and at all rows in a tenth of the shards: flat memory is memory that stays.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import torch
from dagster_project import CHECKPOINT, write_project
from dagster_scale import fill_lake
from measurements import in_a_process, markdown_table, memory_of_this_process, report, setting_and_output

from lorif_assets.assets.graph import ASSETS
from lorif_assets.attribution.scores.score_rows import listed_positions
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.attribution.stored.factors import StoredFactors, stored_factors
from lorif_assets.attribution.stored.ledger import Ledger
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.selection import outlook, selected_assets
from lorif_assets.config.settings import CONFIG_NAME
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments, block_scores
from lorif_assets.project import Project

KEPT, LISTED = 100, 10


@dataclass(frozen=True)
class Setting:
    """Examples, shards, queries, and rows that are scored at a time."""

    examples: int = 10_000_000
    shards: int = 1_000
    queries: int = 10
    scan_rows: int = 4_096


def plan(root: str, setting: Setting) -> None:
    """Find what is out of date: nothing of examples and factors, the curvature of every layer."""
    del setting
    project = Project.open(Path(root, CONFIG_NAME))
    found = {one.asset: one for one in outlook(Freshness.of(project), selected_assets(project.settings))}
    if found["gradient_factors"].partitions or not found["svd_preconditioners"].partitions:
        raise ValueError(f"expected factors that are up to date, and no curvature: {found}")


def ledger(root: str, setting: Setting) -> None:
    """List the shards of a curvature that holds all factors, and what to add to one that holds half of them."""
    stored = opened(root)
    curvature = curvature_of(Project.open(Path(root, CONFIG_NAME)).settings.recipe)
    half = curvature.ledger(replace(stored, files=stored.files[::2]))
    added = half.difference(Ledger.parse(curvature.ledger(stored).json())).rows
    if added != setting.examples // 2:
        raise ValueError(f"expected half of {setting.examples} examples to add, found {added}")


def scan(root: str, setting: Setting) -> None:
    """Score all factors, and read the names of the examples that a report would list."""
    stored = opened(root)
    generator = torch.Generator().manual_seed(1)
    shapes = stored.layer_shapes.items()
    queries = {layer: torch.randn(setting.queries, d1 * d2, generator=generator) for layer, (d1, d2) in shapes}
    extremes, moments = ScoreExtremes.empty(setting.queries, KEPT), ScoreMoments.empty(setting.queries)
    for block in read_ahead(stored.scan_blocks(list(stored.layer_shapes), setting.scan_rows, torch.device("cpu"))):
        scores = block_scores(queries, block)
        extremes = extremes.update(scores, moments.count)
        moments = moments.update(scores)
    names = stored.example_ids(listed_positions(extremes, LISTED))
    if moments.count != setting.examples or not names:
        raise ValueError(f"expected {setting.examples} examples, scored {moments.count}")


PARTS: dict[str, Callable[[str, Setting], None]] = {"plan": plan, "ledger": ledger, "scan": scan}


def opened(root: str) -> StoredFactors:
    """Return the stored factors of the project in a folder."""
    project = Project.open(Path(root, CONFIG_NAME))
    record = checkpoint_record(project.lake, CHECKPOINT, project.settings.recipe)
    return stored_factors(project.lake, record, project.settings.recipe)


def measured(part: str, root: str, setting: Setting) -> dict[str, Any]:
    """Do one part in this process, and return its seconds and the process's memory."""
    torch.set_num_threads(1)
    before = memory_of_this_process("VmRSS")
    cpu, wall = time.process_time(), time.perf_counter()
    PARTS[part](root, setting)
    return {
        "part": part,
        "examples": setting.examples,
        "shards": setting.shards,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall,
        "before_mib": before / 2**20,
        "resident_mib": memory_of_this_process("VmHWM") / 2**20,
        "anonymous_mib": memory_of_this_process("RssAnon") / 2**20,
    }


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Measure each part of one project."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = setting.examples // setting.shards
        write_project(root, setting.shards, rows=rows)
        project = Project.open(root / CONFIG_NAME)
        with dg.DagsterInstance.ephemeral() as instance:
            first = [asset for asset in ASSETS if asset.name == "checkpoints"]
            list(bring_up_to_date(instance, ASSETS, project, selection=first))
        fill_lake(project, setting.shards, rows)
        return [in_a_process(measured, part, folder, setting) for part in PARTS]


COLUMNS = {
    "": "{part}",
    "examples": "{examples:,}",
    "shards": "{shards:,}",
    "CPU s": "{cpu_seconds:.1f}",
    "seconds": "{wall_seconds:.1f}",
    "before, MiB": "{before_mib:,.0f}",
    "largest, MiB": "{resident_mib:,.0f}",
    "without file pages at the end, MiB": "{anonymous_mib:,.0f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "bookkeeping")
    few = max(2, setting.shards // 10)
    settings = [
        replace(setting, examples=setting.examples // 10, shards=few),
        replace(setting, shards=few),
        setting,
    ]
    rows = [row for one in settings for row in measure(one)]
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
