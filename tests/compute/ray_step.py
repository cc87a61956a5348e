"""A step of its own process, for a test that kills it: shards that its table holds are not done again.

python -m tests.compute.ray_step ADDRESS FOLDER SHARDS
"""

import logging
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from lorif_assets.compute.ray_engine import RayEngine
from lorif_assets.config.compute import ComputeSettings
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import table
from tests.compute.ray_work import Lasting, Opened

SHARD_SECONDS = 0.2
_DOUBLED = table(
    "doubled", ("shard",), "the double of a shard's number", shard=pa.string(), double=pa.float32(), worker=pa.int64()
)


def stored(folder: Path) -> pl.DataFrame:
    """The rows that are committed: of each shard the double of its number, and the process that computed it."""
    return Lake(str(folder / "lake")).read(_DOUBLED)


def run(address: str, folder: Path, shards: int) -> None:
    settings = ComputeSettings(engine="ray", address=address, workers=2, attempts=20)
    done = {*stored(folder)["shard"]}
    left = [f"s{number}:{number}" for number in range(shards) if f"s{number}" not in done]
    lake = Lake(str(folder / "lake"))

    def commit(result: dict[str, Any]) -> None:
        rows = {"shard": [result["name"]], "double": result["numbers"].numpy(), "worker": [result["pid"]]}
        lake.replace(_DOUBLED, {"shard": result["name"]}, pa.table(rows, _DOUBLED.columns))

    with RayEngine(settings, 1).workers(Opened(folder), logging.getLogger("step")) as workers:
        for _, outcome in workers.map_shards(Lasting(SHARD_SECONDS), left, commit):
            outcome.result()


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
