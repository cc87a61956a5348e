"""Stage 3 beside its floor: stored factors scored per second, and a raw read of the same files, both warm.

Synthetic factors lie in a lake of their own, written as `gradient_factors` writes them. Timed in turn, each with all before
it: a `raw` read of the files' bytes; `columns`, the read of the layers' columns by Arrow; `decoded`, factors in FP32;
`scored`, products with the preconditioned queries; and the `whole` scan, which keeps each query's extremes and moments too.
Shares are ratios of CPU seconds, which other work on the machine changes little; ratios of wall seconds stand beside
them. `binds` is the part that adds most.

Bytes on disk are those of the files, table overhead included, over those of the codes alone. Memory is that of a process
that does nothing but scan, at two sizes: the largest resident memory, and the largest without the pages of the mapped
files, which the system takes back when it needs them.
"""

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from copied_shards import random_rows, shard_name
from measurements import Seconds, interleaved, markdown_table, report, setting_and_output

from lorif_assets.attributed_model import CheckpointRecord
from lorif_assets.attribution.factor_codec import FactorCodec, factor_bytes
from lorif_assets.attribution.low_rank import GradientFactors
from lorif_assets.attribution.scoring import ScoreExtremes, ScoreMoments, block_scores
from lorif_assets.read_ahead import read_ahead
from lorif_assets.recipe import Recipe
from lorif_assets.stored_factors import StoredFactors, stored_factors
from resources.lake import Lake
from resources.schemas import GRADIENT_FACTORS

CPU = torch.device("cpu")
KEPT = 100
RAW, COLUMNS_READ, DECODED, SCORED, WHOLE = "raw", "columns", "decoded", "scored", "whole"
CODECS, RANKS, QUERIES = ("bf16", "int8", "int4", "sign"), (1, 8), (10, 100)


@dataclass(frozen=True)
class Setting:
    """Size of the synthetic factors: `blocks` blocks of GPT-2's shape, of which `width` is already projected."""

    examples: int = 2_048
    shards: int = 2
    blocks: int = 1
    width: int = 64
    scan_rows: int = 1_024
    repeats: int = 3
    threads: int = 1

    @property
    def layer_shapes(self) -> dict[str, tuple[int, int]]:
        """(d1, d2) of each layer."""
        d = self.width
        shapes = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
        return {f"h.{block}.{layer}": shape for block in range(self.blocks) for layer, shape in shapes.items()}

    @property
    def record(self) -> CheckpointRecord:
        """A checkpoint with these layers."""
        return CheckpointRecord("synthetic", "weights" * 4, "tokenizer" * 3, "none", 0, None, self.layer_shapes)


def recipe_of(codec: str, c: int) -> Recipe:
    """Return the recipe of such factors."""
    return Recipe.model_validate({"curvature": "svd", "factor_dtype": codec, "rank": c})


def written_factors(root: str, setting: Setting, recipe: Recipe, examples: int) -> StoredFactors:
    """Write shards of random factors, and return them as a scan finds them."""
    lake, record = Lake(root=root), setting.record
    for shard in map(shard_name, range(setting.shards)):
        rows = random_rows(record, recipe, shard, examples // setting.shards)
        lake.replace(GRADIENT_FACTORS, {"checkpoint": record.name, "shard": shard}, rows)
    return stored_factors(lake, record, recipe)


def random_queries(setting: Setting, n_queries: int) -> dict[str, torch.Tensor]:
    """Return preconditioned queries, dense as the recipe keeps them by default."""
    generator = torch.Generator().manual_seed(1)
    shapes = setting.layer_shapes.items()
    return {layer: torch.randn(n_queries, d1 * d2, generator=generator) for layer, (d1, d2) in shapes}


class Scan:
    """A scan of stored factors, up to each of its parts."""

    def __init__(self, lake: Lake, stored: StoredFactors, setting: Setting, n_queries: int) -> None:
        self._lake, self._stored, self._setting = lake, stored, setting
        self._queries = random_queries(setting, n_queries)
        self._n_queries = n_queries
        self.files = [Path(lake.uri(GRADIENT_FACTORS), file.path) for file in stored.files]

    def raw(self) -> None:
        """Read the files' bytes into one buffer."""
        buffer = memoryview(bytearray(1 << 20))
        for file in self.files:
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

    def columns(self) -> None:
        """Read the layers' columns."""
        layers = list(self._setting.layer_shapes)
        for _ in self._lake.stream_factors(self._stored.files, layers, self._setting.scan_rows):
            pass

    def decoded(self) -> None:
        """Decode the factors."""
        for _ in self._blocks():
            pass

    def scored(self) -> None:
        """Score the factors."""
        for block in read_ahead(self._blocks()):
            block_scores(self._queries, block)

    def whole(self) -> int:
        """Keep extremes and moments of the scores, and return the largest memory seen that is no file's, in bytes."""
        extremes, moments = ScoreExtremes.empty(self._n_queries, KEPT), ScoreMoments.empty(self._n_queries)
        largest = 0
        for block in read_ahead(self._blocks()):
            scores = block_scores(self._queries, block)
            extremes = extremes.update(scores, moments.count)
            moments = moments.update(scores)
            largest = max(largest, memory_of_this_process("RssAnon"))
        return largest

    def _blocks(self) -> Iterator[dict[str, GradientFactors]]:
        return self._stored.blocks(self._lake, list(self._setting.layer_shapes), self._setting.scan_rows, CPU)


def memory_of_this_process(kind: str) -> int:
    """Return a kind of memory that Linux tells of a process (`VmHWM`, `RssAnon`), in bytes; 0 on other systems."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def binding(taken: dict[str, Seconds]) -> str:
    """Return which part of a scan takes most CPU seconds."""
    parts = {
        "reading": taken[COLUMNS_READ].cpu,
        "decoding": taken[DECODED].cpu - taken[COLUMNS_READ].cpu,
        "products": taken[SCORED].cpu - taken[DECODED].cpu,
        "extremes": taken[WHOLE].cpu - taken[SCORED].cpu,
    }
    return max(parts, key=lambda part: parts[part])


def measure_scan(setting: Setting, codec: str, c: int) -> list[dict[str, Any]]:
    """Time the scans of one kind of factors, and return a row for each number of queries."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(root=folder)
        stored = written_factors(folder, setting, recipe_of(codec, c), setting.examples)
        codes = sum(factor_bytes(FactorCodec(codec), *shape, c) for shape in setting.layer_shapes.values())
        rows = []
        for n_queries in QUERIES:
            scan = Scan(lake, stored, setting, n_queries)
            on_disk = sum(file.stat().st_size for file in scan.files)
            works = {
                RAW: scan.raw,
                COLUMNS_READ: scan.columns,
                DECODED: scan.decoded,
                SCORED: scan.scored,
                WHOLE: scan.whole,
            }
            taken = interleaved(works, setting.repeats)
            rows.append(
                {
                    "codec": codec,
                    "c": c,
                    "queries": n_queries,
                    "bytes_per_example": codes,
                    "disk_over_codes": on_disk / (codes * stored.n_examples),
                    "raw_mb_per_cpu_second": on_disk / 1e6 / taken[RAW].cpu,
                    **{f"{part}_cpu_us": seconds.cpu / stored.n_examples * 1e6 for part, seconds in taken.items()},
                    **{f"{part}_wall_us": seconds.wall / stored.n_examples * 1e6 for part, seconds in taken.items()},
                    "share_of_raw": taken[RAW].cpu / taken[WHOLE].cpu,
                    "share_of_raw_wall": taken[RAW].wall / taken[WHOLE].wall,
                    "binding": binding(taken),
                }
            )
        return rows


def measure_memory(setting: Setting, codec: str, c: int, examples: int) -> dict[str, Any]:
    """Return the memory of a scan of so many examples by a process of its own."""
    with tempfile.TemporaryDirectory() as folder, _fresh_process() as writer, _fresh_process() as reader:
        stored = writer.submit(written_factors, folder, setting, recipe_of(codec, c), examples).result()
        files = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        peak, anonymous = reader.submit(scan_memory, folder, stored, setting).result()
        return {
            "codec": codec,
            "c": c,
            "queries": QUERIES[-1],
            "examples": examples,
            "files_mib": files / 2**20,
            "resident_mib": peak / 2**20,
            "anonymous_mib": anonymous / 2**20,
        }


def scan_memory(root: str, stored: StoredFactors, setting: Setting) -> tuple[int, int]:
    """Scan, and return this process's largest resident memory, and the largest that is no file's, in bytes."""
    torch.set_num_threads(setting.threads)
    anonymous = Scan(Lake(root=root), stored, setting, QUERIES[-1]).whole()
    return memory_of_this_process("VmHWM"), anonymous


def _fresh_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"))


COLUMNS = {
    "codec": "{codec}",
    "c": "{c}",
    "Q": "{queries}",
    "bytes / example": "{bytes_per_example:,}",
    "on disk": "{disk_over_codes:.3f}",
    "raw, MB/CPU s": "{raw_mb_per_cpu_second:,.0f}",
    **{f"{part}, us": f"{{{part}_cpu_us:.2f}}" for part in (RAW, COLUMNS_READ, DECODED, SCORED, WHOLE)},
    "of the raw rate": "{share_of_raw:.3f}",
    "by the clock": "{share_of_raw_wall:.3f}",
    "binds": "{binding}",
}


MEMORY_COLUMNS = {
    "codec": "{codec}",
    "c": "{c}",
    "Q": "{queries}",
    "examples": "{examples:,}",
    "files, MiB": "{files_mib:,.0f}",
    "largest resident memory, MiB": "{resident_mib:,.0f}",
    "without file pages, MiB": "{anonymous_mib:,.0f}",
}


def main() -> None:
    """Run the benchmark, print the tables, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "scan_rate")
    torch.set_num_threads(setting.threads)
    rates = [row for codec in CODECS for c in RANKS for row in measure_scan(setting, codec, c)]
    memory = [measure_memory(setting, "bf16", 1, setting.examples * times) for times in (2, 8)]
    kinds = ((COLUMNS, rates), (MEMORY_COLUMNS, memory))
    tables = "\n\n".join(markdown_table(columns, rows) for columns, rows in kinds)
    report(output, setting, {"rates": rates, "memory": memory}, tables)


if __name__ == "__main__":
    main()
