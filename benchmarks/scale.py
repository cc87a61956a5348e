"""A scan of up to a million stored examples, and of up to 10,000 shards: time by the example, memory flat.

Synthetic rank-one factors of one block of GPT-2's shape, `width` wide after projection, are written as `copied_shards` says.
Each scan runs in a process of its own that does nothing else: it looks up which files there are and whether they fit together,
streams them past the queries, keeps the extremes, and reads the names of the listed examples. Memory is that process's: the
largest resident memory, with the pages of mapped files, which the system takes back when it needs them, and without.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from copied_shards import write_shards
from measurements import in_a_process, markdown_table, memory_of_this_process, report, setting_and_output
from scan_rate import CPU, KEPT, random_queries, recipe_of
from scan_rate import Setting as ScanSetting

from lorif_assets.attribution.scores.score_rows import listed_positions
from lorif_assets.attribution.stored.factors import stored_factors
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments, block_scores

CODEC, RANK, LISTED = "bf16", 1, 10
PARTS = ("looked up", "scanned", "named")


@dataclass(frozen=True)
class Setting:
    """Size of the synthetic factors."""

    examples: int = 1_000_000
    shards: int = 80
    width: int = 64
    queries: int = 10
    scan_rows: int = 1_024
    examples_in_shards: int = 100_000
    most_shards: int = 10_000
    threads: int = 1

    @property
    def scan(self) -> ScanSetting:
        """The same factors as the scan benchmark's."""
        return ScanSetting(width=self.width, scan_rows=self.scan_rows)


def scan(root: str, setting: Setting, shards: int) -> dict[str, Any]:
    """Scan the first shards of a lake, and return the CPU seconds of each part and the memory of this process."""
    torch.set_num_threads(setting.threads)
    lake, record, recipe = Lake(root=root), setting.scan.record, recipe_of(CODEC, RANK)
    queries, n = random_queries(setting.scan, setting.queries), setting.queries
    before = memory_of_this_process("RssAnon")
    marks, walls = [time.process_time()], [time.perf_counter()]
    found = stored_factors(lake, record, recipe)
    stored = replace(found, files=found.files[:shards])
    marks.append(time.process_time())
    extremes, moments, largest = ScoreExtremes.empty(n, KEPT), ScoreMoments.empty(n), 0
    for block in read_ahead(stored.scan_blocks(list(record.layer_shapes), setting.scan_rows, CPU)):
        scores = block_scores(queries, block)
        extremes = extremes.update(scores, moments.count)
        moments = moments.update(scores)
        largest = max(largest, memory_of_this_process("RssAnon"))
    marks.append(time.process_time())
    stored.example_ids(listed_positions(extremes, LISTED))
    marks.append(time.process_time())
    walls.append(time.perf_counter())
    return {
        "examples": stored.n_examples,
        "shards": shards,
        **{part: after - start for part, start, after in zip(PARTS, marks, marks[1:], strict=False)},
        "us_per_example": (marks[-1] - marks[0]) / stored.n_examples * 1e6,
        "wall_seconds": walls[1] - walls[0],
        "resident_mib": memory_of_this_process("VmHWM") / 2**20,
        "anonymous_mib": max(largest, memory_of_this_process("RssAnon")) / 2**20,
        "anonymous_before_mib": before / 2**20,
    }


def measure_examples(setting: Setting) -> list[dict[str, Any]]:
    """Scan an eighth, a quarter, a half and all of the shards."""
    with tempfile.TemporaryDirectory() as folder:
        rows = setting.examples // setting.shards
        write_shards(Lake(root=folder), setting.scan.record, recipe_of(CODEC, RANK), setting.shards, rows, 1)
        return [in_a_process(scan, folder, setting, setting.shards // part) for part in (8, 4, 2, 1)]


def measure_shards(setting: Setting) -> list[dict[str, Any]]:
    """Scan as many examples in ever more shards."""
    rows = []
    for shards in (1, 100, 1_000, 10_000):
        if shards <= setting.most_shards:
            with tempfile.TemporaryDirectory() as folder:
                each = setting.examples_in_shards // shards
                write_shards(Lake(root=folder), setting.scan.record, recipe_of(CODEC, RANK), shards, each, 100)
                rows.append(in_a_process(scan, folder, setting, shards))
    return rows


COLUMNS = {
    "examples": "{examples:,}",
    "shards": "{shards:,}",
    **{f"{part}, CPU s": f"{{{part}:.2f}}" for part in PARTS},
    "us / example": "{us_per_example:.1f}",
    "resident, MiB": "{resident_mib:,.0f}",
    "without file pages, MiB": "{anonymous_mib:,.0f}",
    "before the scan, MiB": "{anonymous_before_mib:,.0f}",
}


def main() -> None:
    """Run the benchmark, print the tables, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "scale")
    by_shards = measure_shards(setting)
    by_examples = measure_examples(setting)
    tables = "\n\n".join(markdown_table(COLUMNS, rows) for rows in (by_examples, by_shards))
    report(output, setting, {"examples": by_examples, "shards": by_shards}, tables)


if __name__ == "__main__":
    main()
