"""A step of its own process, for a test that kills it: shards that are committed, one line each, are not done again.

python -m tests.compute.ray_step ADDRESS FOLDER SHARDS
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from lorif_assets.compute.ray_engine import RayEngine
from lorif_assets.config.compute import ComputeSettings
from tests.compute.ray_work import Lasting, Opened


def committed(folder: Path) -> list[str]:
    """The shards that are committed, in their order."""
    ledger = folder / "committed"
    return ledger.read_text().splitlines() if ledger.exists() else []


def run(address: str, folder: Path, shards: int) -> None:
    settings = ComputeSettings(engine="ray", address=address, workers=2, attempts=20)
    left = [f"s{number}:{number}" for number in range(shards)]
    left = [shard for shard in left if shard.partition(":")[0] not in committed(folder)]
    log = os.open(folder / "committed", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def commit(stored: dict[str, Any]) -> None:
        os.write(log, f"{stored['name']}\n".encode())

    with RayEngine(settings, 1).workers(Opened(folder), logging.getLogger("step")) as workers:
        for _, outcome in workers.map_shards(Lasting(seconds=0.2), left, commit):
            outcome.result()


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
