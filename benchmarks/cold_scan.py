"""A scan of factors that are not in memory, beside a raw read of the same files: does the disk bind, and is it kept busy?

Before each measurement the system is told to drop the files' pages (Linux), so that all is read from the disk. Timed by the
clock, in turn: a `raw` read of the files' bytes, and the `cold` scan, which reads, decodes, multiplies and keeps extremes, the
next block being read while one is multiplied. The `warm` scan, with the files in memory, tells how fast all but the disk
goes: where it is faster than the raw read, the disk binds, and the cold scan's share of the raw rate says how busy it is kept.

To see what a slower disk than this machine's would do, limit the reads of the process (a cgroup's `io.max`, or
`blkio.throttle.read_bps_device`), and say so by `--disk`.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measurements import interleaved, markdown_table, report, setting_and_output
from scan_files import LakeFiles
from scan_rate import Scan, recipe_of
from scan_rate import Setting as ScanSetting

from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

RAW, COLD, WARM = "raw", "cold", "warm"
FACTORS, QUERIES = (("bf16", 1), ("bf16", 8), ("sign", 8)), (1, 10, 100)


@dataclass(frozen=True)
class Setting:
    """Size of the synthetic factors: one block of GPT-2's shape, of which `width` is already projected."""

    mebibytes: int = 128
    shards: int = 4
    width: int = 64
    scan_rows: int = 1_024
    repeats: int = 3
    threads: int = os.cpu_count() or 1
    disk: str = "this machine's"

    @property
    def scan(self) -> ScanSetting:
        """The same factors as the scan benchmark's."""
        return ScanSetting(width=self.width, scan_rows=self.scan_rows)


def drop_from_memory(files: list[Path]) -> None:
    """Tell the system to keep no page of these files."""
    os.sync()
    for file in files:
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(setting: Setting, codec: str, c: int) -> list[dict[str, Any]]:
    """Time the scans of one kind of factors, and return a row for each number of queries."""
    shapes, recipe = setting.scan.layer_shapes.values(), recipe_of(codec, c)
    bytes_per_example = sum(factor_bytes(FactorCodec(codec), *shape, c) for shape in shapes)
    examples = (setting.mebibytes << 20) // bytes_per_example // setting.shards
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        stored = LakeFiles(Path(folder), setting.scan.record, recipe, setting.shards, setting.shards * examples)
        for n_queries in QUERIES:
            scan = Scan(stored, setting.scan, n_queries)
            size = sum(file.stat().st_size for file in scan.files)

            def drop(files: list[Path] = scan.files) -> None:
                drop_from_memory(files)

            works = {RAW: scan.raw, COLD: scan.whole, WARM: scan.whole}
            taken = interleaved(works, setting.repeats, before={RAW: drop, COLD: drop})
            rates = {name: size / 1e6 / seconds.wall for name, seconds in taken.items()}
            rows.append(
                {
                    "codec": codec,
                    "c": c,
                    "queries": n_queries,
                    "bytes_per_example": bytes_per_example,
                    "examples": stored.n_examples,
                    **{f"{name}_mb_per_second": rate for name, rate in rates.items()},
                    "share_of_raw": rates[COLD] / rates[RAW],
                    "binding": "reading" if rates[WARM] > rates[RAW] else "products",
                    "share_of_what_binds": rates[COLD] / min(rates[RAW], rates[WARM]),
                }
            )
    return rows


COLUMNS = {
    "codec": "{codec}",
    "c": "{c}",
    "Q": "{queries}",
    "raw, MB/s": "{raw_mb_per_second:,.0f}",
    "warm scan, MB/s": "{warm_mb_per_second:,.0f}",
    "cold scan, MB/s": "{cold_mb_per_second:,.0f}",
    "of the raw rate": "{share_of_raw:.2f}",
    "binds": "{binding}",
    "of what binds": "{share_of_what_binds:.2f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "cold_scan")
    torch.set_num_threads(setting.threads)
    rows = [row for codec, c in FACTORS for row in measure(setting, codec, c)]
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
