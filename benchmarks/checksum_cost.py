"""What comparing factors with their checksums adds to a scan: CPU seconds of the comparisons over those of all else.

Both are of the same scan, so that other work on the machine lengthens them alike.
"""

import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from measurements import markdown_table, report, setting_and_output, timed
from scan_files import LakeFiles
from scan_rate import Scan, Setting, recipe_of

from lorif_assets.lake.open_factors import OpenFactors

COLUMNS = {
    "codec": "{codec}",
    "c": "{c}",
    "Q": "{queries}",
    "scan, us / example": "{scan_us:.2f}",
    "checksums, us / example": "{checksums_us:.3f}",
    "added": "{added:.2%}",
    "at most": "{most:.2%}",
}
_REQUIRE_SOUND = OpenFactors._require_sound


def measured(setting: Setting, codec: str, c: int, n_queries: int) -> dict[str, Any]:
    """Return what share checksums add to the scans of one kind of factors."""
    compared = 0.0

    def timed_comparison(factors: OpenFactors, columns: Collection[str], group: int) -> None:
        nonlocal compared
        started = time.thread_time()
        _REQUIRE_SOUND(factors, columns, group)
        compared += time.thread_time() - started

    with tempfile.TemporaryDirectory() as folder:
        stored = LakeFiles(Path(folder), setting.record, recipe_of(codec, c), setting.shards, setting.examples)
        scan = Scan(stored, setting, n_queries)
        scan.whole()
        scans: list[tuple[float, float]] = []
        for _ in range(setting.repeats):
            compared = 0.0
            with patch.object(OpenFactors, "_require_sound", timed_comparison):
                whole = timed(scan.whole).cpu
            scans.append((whole, compared))
    shares = [inside / (whole - inside) for whole, inside in scans]
    return {
        "codec": codec,
        "c": c,
        "queries": n_queries,
        "scan_us": median(whole - inside for whole, inside in scans) / stored.n_examples * 1e6,
        "checksums_us": median(inside for _, inside in scans) / stored.n_examples * 1e6,
        "added": median(shares),
        "most": max(shares),
    }


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "checksum_cost")
    torch.set_num_threads(setting.threads)
    kinds = [
        (codec, int(c), int(n))
        for codec in setting.codecs.split()
        for c in setting.ranks.split()
        for n in setting.queries.split()
    ]
    rows = [measured(setting, *kind) for kind in kinds]
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
