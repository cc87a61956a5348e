"""Stage 3 beside its floor: stored factors scored per second, and a raw read of the same files, both warm.

Synthetic factors lie in a lake of their own, written as `gradient_factors` writes them. Timed in turn, each with all before
it: a `raw` read of the files' bytes; `columns`, the read of the layers' columns by Arrow; `decoded`, factors in FP32;
`scored`, products with the preconditioned queries; and the `whole` scan, which keeps each query's extremes and moments too.
Shares are ratios of CPU seconds, which other work on the machine changes little; ratios of wall seconds stand beside
them. `binds` is the part that adds most. On an accelerator, which works by itself, all shares are of wall seconds.

    python benchmarks/scan_rate.py --device cuda:0 --architecture llama --width 256 --codecs sign --ranks 8 --profile

Bytes on disk are those of the files, table overhead included, over those of the codes alone. `--files plain` keeps the same
codes in a file for each shard and layer, for machines without Delta Lake's libraries: what is timed there is the scan on the
device, and reading such files.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from measurements import (
    Seconds,
    interleaved,
    markdown_table,
    peak_memory,
    report,
    setting_and_output,
    synchronise,
    time_by_kind,
)
from scan_files import FactorFiles, LakeFiles, PlainFiles

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes
from lorif_assets.mathematics.factors.packed_signs import LayerFactors
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments, block_scores

CPU = torch.device("cpu")
KEPT = 100
CODECS = ("bf16", "int8", "int4", "sign")
RAW, COLUMNS_READ, DECODED, SCORED, WHOLE = "raw", "columns", "decoded", "scored", "whole"


@dataclass(frozen=True)
class Setting:
    """Size of the synthetic factors: `blocks` blocks of an architecture's shape, of which `width` is already projected.

    `scan_rows` of 0 are as many as the device's free memory has room for; codecs, ranks and queries are lists in one word
    each.
    """

    architecture: str = field(default="gpt2", metadata={"choices": ("gpt2", "llama")})
    examples: int = 8_192
    shards: int = 2
    blocks: int = 1
    width: int = 64
    codecs: str = " ".join(CODECS)
    ranks: str = "1 8"
    queries: str = "1 10 100"
    scan_rows: int = 1_024
    repeats: int = 3
    threads: int = 1
    device: str = "cpu"
    files: str = field(default="lake", metadata={"choices": ("lake", "plain")})
    profile: bool = False

    @property
    def layer_shapes(self) -> dict[str, tuple[int, int]]:
        """(d1, d2) of each layer."""
        d = self.width
        shapes = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
        if self.architecture == "llama":
            attention = {f"self_attn.{side}_proj": (d, d) for side in "qkvo"}
            wide = 8 * d // 3
            shapes = {**attention, "mlp.gate_proj": (d, wide), "mlp.up_proj": (d, wide), "mlp.down_proj": (wide, d)}
        return {f"h.{block}.{layer}": shape for block in range(self.blocks) for layer, shape in shapes.items()}

    @property
    def record(self) -> CheckpointRecord:
        """A checkpoint with these layers."""
        return CheckpointRecord("synthetic", "weights" * 4, "tokenizer" * 3, "none", 0, None, self.layer_shapes)


def recipe_of(codec: str, c: int) -> Recipe:
    """Return the recipe of such factors."""
    return Recipe.model_validate({"curvature": "svd", "factor_dtype": codec, "rank": c})


def random_queries(setting: Setting, n_queries: int) -> dict[str, torch.Tensor]:
    """Return preconditioned queries, dense as the recipe keeps them by default."""
    generator = torch.Generator().manual_seed(1)
    shapes = setting.layer_shapes.items()
    made = {layer: torch.randn(n_queries, d1 * d2, generator=generator) for layer, (d1, d2) in shapes}
    return {layer: queries.to(setting.device) for layer, queries in made.items()}


class Scan:
    """A scan of stored factors, up to each of its parts."""

    def __init__(self, files: FactorFiles, setting: Setting, n_queries: int) -> None:
        self._files, self.files, self._setting = files, files.paths, setting
        self._queries = random_queries(setting, n_queries)
        self._n_queries, self._device = n_queries, torch.device(setting.device)

    def raw(self) -> None:
        """Read the files' bytes into one buffer."""
        buffer = memoryview(bytearray(1 << 20))
        for file in self._files.paths:
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

    def columns(self) -> None:
        """Read the layers' columns."""
        for _ in self._files.columns(self._setting.scan_rows or None):
            pass

    def decoded(self) -> None:
        """Bring the factors into the form that is scored, which is decoded but for signs on a CPU."""
        for _ in self._blocks():
            pass
        synchronise(self._device)

    def scored(self) -> None:
        """Score the factors."""
        for block in read_ahead(self._blocks()):
            block_scores(self._queries, block)
        synchronise(self._device)

    def whole(self) -> None:
        """Keep extremes and moments of the scores."""
        extremes, moments = ScoreExtremes.empty(self._n_queries, KEPT), ScoreMoments.empty(self._n_queries)
        for block in read_ahead(self._blocks()):
            scores = block_scores(self._queries, block)
            extremes = extremes.update(scores, moments.count)
            moments = moments.update(scores)
        extremes.on_cpu(), moments.on_cpu()

    def _blocks(self) -> Iterator[dict[str, LayerFactors]]:
        return self._files.blocks(self._setting.scan_rows or None, self._device)


def binding(taken: dict[str, Seconds], *, by_the_clock: bool) -> str:
    """Return which part of a scan takes most CPU seconds, or most time by the clock."""
    seconds = {part: of_part.wall if by_the_clock else of_part.cpu for part, of_part in taken.items()}
    parts = {
        "reading": seconds[COLUMNS_READ],
        "decoding": seconds[DECODED] - seconds[COLUMNS_READ],
        "products": seconds[SCORED] - seconds[DECODED],
        "extremes": seconds[WHOLE] - seconds[SCORED],
    }
    return max(parts, key=lambda part: parts[part])


def measure_scan(setting: Setting, codec: str, c: int) -> list[dict[str, Any]]:
    """Time the scans of one kind of factors, and return a row for each number of queries."""
    with tempfile.TemporaryDirectory() as folder:
        kind: type[FactorFiles] = LakeFiles if setting.files == "lake" else PlainFiles
        files = kind(Path(folder), setting.record, recipe_of(codec, c), setting.shards, setting.examples)
        n, on_disk = files.n_examples, sum(path.stat().st_size for path in files.paths)
        codes = sum(factor_bytes(FactorCodec(codec), *shape, c) for shape in setting.layer_shapes.values())
        rows = []
        for n_queries in map(int, setting.queries.split()):
            scan = Scan(files, setting, n_queries)
            works = {
                RAW: scan.raw,
                COLUMNS_READ: scan.columns,
                DECODED: scan.decoded,
                SCORED: scan.scored,
                WHOLE: scan.whole,
            }
            taken = interleaved(works, setting.repeats)
            if setting.profile:
                print(time_by_kind(torch.device(setting.device), scan.whole))
            rows.append(
                {
                    "codec": codec,
                    "c": c,
                    "queries": n_queries,
                    "bytes_per_example": codes,
                    "disk_over_codes": on_disk / (codes * n),
                    "raw_mb_per_cpu_second": on_disk / 1e6 / taken[RAW].cpu,
                    **{f"{part}_cpu_us": seconds.cpu / n * 1e6 for part, seconds in taken.items()},
                    **{f"{part}_wall_us": seconds.wall / n * 1e6 for part, seconds in taken.items()},
                    "share_of_raw": taken[RAW].cpu / taken[WHOLE].cpu,
                    "share_of_raw_wall": taken[RAW].wall / taken[WHOLE].wall,
                    "mb_per_second": codes * n / 1e6 / taken[WHOLE].wall,
                    "mb_per_cpu_second": codes * n / 1e6 / taken[WHOLE].cpu,
                    "peak_device_mib": peak_memory(torch.device(setting.device), scan.whole) / 2**20,
                    "binding": binding(taken, by_the_clock=setting.device != "cpu"),
                }
            )
        return rows


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
    "MB/s of CPU time": "{mb_per_cpu_second:,.0f}",
    "MB/s": "{mb_per_second:,.0f}",
    "binds": "{binding}",
}


def main() -> None:
    """Run the benchmark, print the tables, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "scan_rate")
    torch.set_num_threads(setting.threads)
    kinds = [(codec, int(c)) for codec in setting.codecs.split() for c in setting.ranks.split()]
    rates = [row for codec, c in kinds for row in measure_scan(setting, codec, c)]
    report(output, setting, rates, markdown_table(COLUMNS, rates))


if __name__ == "__main__":
    main()
