"""Bytes on disk of stored factors beside the bytes of their codes alone: table columns, row groups and footers included.

Whole models of GPT-2's shape, `width` wide after projection, and one block of it; one shard of random factors each.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copied_shards import random_rows, shard_name
from measurements import markdown_table, report, setting_and_output
from scan_rate import CODECS, recipe_of
from scan_rate import Setting as ScanSetting

from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

RANKS = (1, 8)


@dataclass(frozen=True)
class Setting:
    """Size of the synthetic factors; GPT-2 small projected by 8 has 12 blocks of width 96."""

    blocks: int = 12
    width: int = 96
    examples: int = 512


def measure(setting: Setting, blocks: int, codec: str, c: int) -> dict[str, Any]:
    """Write one shard, and return what it takes."""
    scan, recipe = ScanSetting(blocks=blocks, width=setting.width), recipe_of(codec, c)
    with tempfile.TemporaryDirectory() as folder:
        rows = random_rows(scan.record, recipe, shard_name(0), setting.examples)
        partition = {"checkpoint": scan.record.name, "shard": shard_name(0)}
        Lake(root=folder).replace(GRADIENT_FACTORS, partition, rows)
        on_disk = sum(
            file.stat().st_size for file in Path(folder, GRADIENT_FACTORS.name).glob("checkpoint=*/**/*.parquet")
        )
    codes = sum(factor_bytes(FactorCodec(codec), *shape, c) for shape in scan.layer_shapes.values())
    per_example = on_disk / setting.examples
    return {
        "layers": len(scan.layer_shapes),
        "codec": codec,
        "c": c,
        "codes": codes,
        "on_disk": per_example,
        "ratio": per_example / codes,
    }


COLUMNS = {
    "layers": "{layers}",
    "codec": "{codec}",
    "c": "{c}",
    "bytes of codes / example": "{codes:,}",
    "on disk": "{on_disk:,.0f}",
    "ratio": "{ratio:.3f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "bytes_on_disk")
    rows = [measure(setting, blocks, codec, c) for blocks in (setting.blocks, 1) for codec in CODECS for c in RANKS]
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
