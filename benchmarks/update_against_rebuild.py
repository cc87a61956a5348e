"""What an update of a layer's curvature costs, beside a rebuild, when 1 %, 10 % and 100 % of the rows changed.

Synthetic factors lie in a lake of their own, in shards of equal size; whole shards change. Timed are the two ways that
`svd_preconditioners` has: subtracting and adding the changed shards by the ledger, and building the state from nothing.
Both read their factors from the lake. Eigenpairs are computed after either, and timed apart. Times are CPU seconds, which other
work on the machine does not change; with one thread they are those of a machine at rest.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from deltalake import write_deltalake

from lorif_assets.attributed_model import CheckpointRecord
from lorif_assets.layer_curvature import CurvatureFit, fit_curvature, renew_layer
from lorif_assets.recipe import Recipe
from lorif_assets.stored_factors import StoredFactors, stored_factors
from resources.lake import Lake
from resources.schemas import GRADIENT_FACTORS, SVD_PRECONDITIONERS

LAYER = "layer"
CPU = torch.device("cpu")
SHARES = (0.01, 0.1, 1.0)
SCAN_ROWS = 1_024


@dataclass(frozen=True)
class Setting:
    """Size of the synthetic problem."""

    examples: int
    shards: int
    d1: int
    d2: int
    r: int
    repeats: int
    threads: int

    @property
    def recipe(self) -> Recipe:
        """Rank-one factors in bfloat16, the basis twice as wide as r: the defaults."""
        return Recipe(r=self.r)

    @property
    def record(self) -> CheckpointRecord:
        """A checkpoint of one layer."""
        return CheckpointRecord("synthetic", "weights", "tokenizer", "none", 0, None, {LAYER: (self.d1, self.d2)})

    @property
    def rows(self) -> int:
        """Examples of a shard."""
        return self.examples // self.shards


def write_shards(lake: Lake, setting: Setting, numbers: range, rng: np.random.Generator, version: int) -> None:
    """Write shards of random factors whose coordinates decay, as those of gradients do, in one commit."""
    record, n = setting.record, setting.rows * len(numbers)
    shards = [f"s{number:05d}" for number in numbers for _ in range(setting.rows)]
    decay = np.concatenate([np.arange(1, d + 1) ** -0.5 for d in (setting.d1, setting.d2)])
    values = torch.from_numpy(rng.standard_normal((n, len(decay))) * decay).to(torch.bfloat16).view(torch.uint8).numpy()
    constants = {
        "checkpoint": record.name,
        "recipe_hash": setting.recipe.factor_hash,
        "weights_hash": record.weights_hash,
        "tokenizer_hash": record.tokenizer_hash,
        "projection": "none",
        "factor_codec": setting.recipe.factor_dtype,
    }
    rows = {
        "shard": shards,
        "example_id": [f"{shard}/{row}" for row, shard in enumerate(shards)],
        "row": pa.array([row % setting.rows for row in range(n)], pa.int64()),
        "loss": pa.array([1.0] * n, pa.float32()),
        "n_target_tokens": pa.array([1] * n, pa.int32()),
        "truncated": [False] * n,
        "shard_hash": [f"{shard} as of {version}" for shard in shards],
        **{name: [value] * n for name, value in constants.items()},
        LAYER: pa.array([row.tobytes() for row in values], pa.large_binary()),
    }
    write_deltalake(
        lake.uri(GRADIENT_FACTORS),
        pa.table(rows),
        mode="overwrite",
        partition_by=list(GRADIENT_FACTORS.partition_by),
        predicate=f"shard >= '{shards[0]}' AND shard <= '{shards[-1]}'" if version else None,
    )


def changed_lakes(lake: Lake, setting: Setting) -> tuple[dict[str, Any], dict[float, StoredFactors]]:
    """Return the row of a state of the first data, and the factors stored after each share of the shards changed."""
    rng = np.random.default_rng(0)
    write_shards(lake, setting, range(setting.shards), rng, version=0)
    renew_layer(
        lake,
        setting.record,
        stored_factors(lake, setting.record, setting.recipe),
        LAYER,
        setting.recipe,
        rows=SCAN_ROWS,
        device=CPU,
        refine_below=0.0,
    )
    (row,) = lake.read(SVD_PRECONDITIONERS).to_dicts()
    snapshots, done = {}, 0
    for share in SHARES:
        wanted = max(1, round(share * setting.shards))
        write_shards(lake, setting, range(done, wanted), rng, version=1)
        done = wanted
        # A snapshot names its files, which stay: later changes of the lake do not change it.
        snapshots[share] = stored_factors(lake, setting.record, setting.recipe)
    return row, snapshots


def timed(work: Callable[[], CurvatureFit]) -> tuple[float, CurvatureFit]:
    """Return the CPU seconds that some work takes, and its result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Time updates and rebuilds in turn, and return a row per share with the medians."""
    seconds: dict[tuple[float, str], list[float]] = {}
    spectrum: list[float] = []
    results: dict[float, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(root=folder)
        previous, snapshots = changed_lakes(lake, setting)
        for _ in range(setting.repeats):
            for share, stored in snapshots.items():

                def fit(row: dict[str, Any] | None, stored: StoredFactors = stored) -> CurvatureFit:
                    return fit_curvature(lake, stored, LAYER, setting.recipe, row, rows=SCAN_ROWS, device=CPU)

                update_seconds, updated = timed(lambda fit=fit: fit(previous))  # type: ignore[misc]
                rebuild_seconds, rebuilt = timed(lambda fit=fit: fit(None))  # type: ignore[misc]
                seconds.setdefault((share, "update"), []).append(update_seconds)
                seconds.setdefault((share, "rebuild"), []).append(rebuild_seconds)
                started = time.process_time()
                updated.state.spectrum(setting.r)
                spectrum.append(time.process_time() - started)
                difference = updated.state.image - rebuilt.state.image
                results[share] = {
                    "changed_rows": share,
                    "how": updated.how,
                    "rows_read": updated.rows_read,
                    "relative_difference": float(difference.norm() / rebuilt.state.image.norm()),
                }
    eigenpairs = median(spectrum)
    for share, row in results.items():
        update, rebuild = median(seconds[share, "update"]), median(seconds[share, "rebuild"])
        row |= {
            "update_seconds": update,
            "rebuild_seconds": rebuild,
            "eigenpairs_seconds": eigenpairs,
            "ratio": update / rebuild,
            "ratio_with_eigenpairs": (update + eigenpairs) / (rebuild + eigenpairs),
            "factors_recomputed": max(1, round(share * setting.shards)) / setting.shards,
        }
    return list(results.values())


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| rows changed | update, CPU s | rebuild, CPU s | ratio | with eigenpairs | factors computed again | difference |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['changed_rows']:.0%} | {row['update_seconds']:.3f} | {row['rebuild_seconds']:.3f} | {row['ratio']:.3f} | "
        f"{row['ratio_with_eigenpairs']:.3f} | {row['factors_recomputed']:.0%} | {row['relative_difference']:.0e} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, value in {
        "examples": 5_000,
        "shards": 100,
        "d1": 64,
        "d2": 64,
        "r": 128,
        "repeats": 5,
        "threads": 1,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/update_against_rebuild.json")
    options = vars(parser.parse_args())
    output: Path = options.pop("output")
    setting = Setting(**options)
    torch.set_num_threads(setting.threads)
    rows = measure(setting)
    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"setting": asdict(setting), **machine, "results": rows}, indent=2) + "\n")
    print(f"{setting}\n{machine}\n\n{table(rows)}")


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    models = [line for line in cpus.read_text().splitlines() if line.startswith("model name")] if cpus.is_file() else []
    return models[0].partition(":")[2].strip() if models else platform.processor()


if __name__ == "__main__":
    main()
