"""A scan of stored factors beside one of dense projected gradients of the same D, as LoGRA keeps them (arXiv 2405.13954).

The dense gradients lie in one plain file of FP32 (or BF16) rows, mapped into memory and multiplied where they lie, block by
block, by the same products, the system reading ahead: a floor for any dense store. Both scans keep the same extremes. By the
clock, in turn: `warm`, with the files in memory, and `cold`, with their pages dropped before (Linux). Factors of any rank and
codec keep what the dense form keeps in a fraction of the bytes; what that loses in quality is measured by the evaluation
(README.md, "Is it right?").
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mmap import ACCESS_COPY, MADV_WILLNEED, PAGESIZE, mmap
from pathlib import Path
from typing import Any

import torch
from cold_scan import drop_from_memory
from measurements import interleaved, markdown_table, report, setting_and_output
from scan_files import LakeFiles
from scan_rate import KEPT, Scan, random_queries, recipe_of
from scan_rate import Setting as ScanSetting

from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes
from lorif_assets.mathematics.matrix_products import product
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments

WARM, COLD = "warm", "cold"
DENSE = {"dense, FP32": torch.float32, "dense, BF16": torch.bfloat16}
FACTORS = (("bf16", 1), ("sign", 2), ("sign", 8), ("int8", 8))
QUERIES = (10, 100)


@dataclass(frozen=True)
class Setting:
    """Size of the gradients: one block of GPT-2's shape, of which `width` is already projected."""

    examples: int = 1_024
    width: int = 64
    dense_rows: int = 32
    repeats: int = 3
    threads: int = os.cpu_count() or 1
    disk: str = "this machine's"

    @property
    def scan(self) -> ScanSetting:
        """The same layers as the scan benchmark's."""
        return ScanSetting(width=self.width)

    @property
    def dimension(self) -> int:
        """D, of all layers together."""
        return sum(d1 * d2 for d1, d2 in self.scan.layer_shapes.values())


class DenseScan:
    """A scan of rows of D numbers in one file."""

    def __init__(self, file: Path, setting: Setting, dtype: torch.dtype, n_queries: int) -> None:
        self.files = [file]
        self._setting, self._dtype = setting, dtype
        self._queries = torch.cat(list(random_queries(setting.scan, n_queries).values()), dim=1)

    def whole(self) -> None:
        """Keep extremes and moments of the scores."""
        n = len(self._queries)
        extremes, moments = ScoreExtremes.empty(n, KEPT), ScoreMoments.empty(n)
        for block in self._blocks():
            scores = product(self._queries, block.mT)
            extremes = extremes.update(scores, moments.count)
            moments = moments.update(scores)

    def _blocks(self) -> Iterator[torch.Tensor]:
        block_bytes = self._setting.dense_rows * self._setting.dimension * self._dtype.itemsize
        with self.files[0].open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_COPY) as mapped:
            rows = torch.frombuffer(mapped, dtype=self._dtype).view(self._setting.examples, self._setting.dimension)
            for number, block in enumerate(rows.split(self._setting.dense_rows)):
                start = (number + 1) * block_bytes // PAGESIZE * PAGESIZE
                if start < len(mapped):
                    # The system reads the next block while this one is multiplied, where it lies.
                    mapped.madvise(MADV_WILLNEED, start, min(block_bytes, len(mapped) - start))
                yield block.float()
            # What is mapped is let go only after the last that points to it.
            del rows, block


def write_dense(folder: str, setting: Setting, dtype: torch.dtype) -> Path:
    """Write random dense gradients."""
    file = Path(folder, f"{dtype}.bin")
    with file.open("wb") as stream:
        for start in range(0, setting.examples, setting.dense_rows):
            rows = torch.randn(min(setting.dense_rows, setting.examples - start), setting.dimension).to(dtype)
            stream.write(rows.view(torch.uint8).numpy().tobytes())
    return file


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Time every form in turn, and return a row for each form and number of queries."""
    with tempfile.TemporaryDirectory() as folder:
        dense = {name: write_dense(folder, setting, dtype) for name, dtype in DENSE.items()}
        stored = {
            f"{codec}, c = {c}": LakeFiles(
                Path(folder, f"{codec}-{c}"), setting.scan.record, recipe_of(codec, c), 2, setting.examples
            )
            for codec, c in FACTORS
        }
        rows = []
        for n_queries in QUERIES:
            scans: dict[str, DenseScan | Scan] = {
                name: DenseScan(dense[name], setting, dtype, n_queries) for name, dtype in DENSE.items()
            }
            scans |= {name: Scan(files, setting.scan, n_queries) for name, files in stored.items()}
            works: dict[str, Callable[[], object]] = {}
            drops: dict[str, Callable[[], object]] = {}
            for name, scan in scans.items():
                works |= {f"{name} {WARM}": scan.whole, f"{name} {COLD}": scan.whole}
                drops[f"{name} {COLD}"] = lambda files=scan.files: drop_from_memory(files)
            taken = interleaved(works, setting.repeats, before=drops)
            first = next(iter(DENSE))
            for name in scans:
                warm, cold = (taken[f"{name} {kind}"].wall / setting.examples * 1e6 for kind in (WARM, COLD))
                rows.append(
                    {
                        "form": name,
                        "queries": n_queries,
                        "bytes_per_example": stored_bytes(name, setting),
                        "warm_us": warm,
                        "cold_us": cold,
                        "times_faster_warm": taken[f"{first} {WARM}"].wall / setting.examples * 1e6 / warm,
                        "times_faster_cold": taken[f"{first} {COLD}"].wall / setting.examples * 1e6 / cold,
                    }
                )
        return rows


def stored_bytes(form: str, setting: Setting) -> int:
    """Return the bytes of an example's gradient in a form."""
    if form in DENSE:
        return setting.dimension * DENSE[form].itemsize
    codec, c = next((codec, c) for codec, c in FACTORS if form == f"{codec}, c = {c}")
    return sum(factor_bytes(FactorCodec(codec), *shape, c) for shape in setting.scan.layer_shapes.values())


COLUMNS = {
    "form": "{form}",
    "Q": "{queries}",
    "bytes / example": "{bytes_per_example:,}",
    "warm, us / example": "{warm_us:.1f}",
    "cold, us / example": "{cold_us:.1f}",
    "times as fast as dense FP32, warm": "{times_faster_warm:.1f}",
    "cold": "{times_faster_cold:.1f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "dense_scan")
    torch.set_num_threads(setting.threads)
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
