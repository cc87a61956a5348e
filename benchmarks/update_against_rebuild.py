"""What an update of a layer's curvature costs, beside a rebuild, when 1 %, 10 % and 100 % of the rows changed.

Synthetic factors lie in a lake of their own, in shards of equal size; whole shards change. Timed are the two ways that
`svd_preconditioners` has: subtracting and adding the changed shards by the ledger, and building the state from nothing.
Both read their factors from the lake. Eigenpairs are computed after either, and timed apart. Times are CPU seconds, which other
work on the machine does not change; with one thread they are those of a machine at rest.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from deltalake import write_deltalake
from measurements import markdown_table, report, setting_and_output

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.fitting.fit_curvature import CurvatureFit, LayerFitting, commit_row, fitted_row
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.attribution.stored.factors import StoredFactors, stored_factors
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake
from lorif_assets.mathematics.curvature.svd import CurvatureState
from lorif_assets.mathematics.curvature.svd_curvature import SvdCurvature

LAYER = "layer"
CPU = torch.device("cpu")
SHARES = (0.01, 0.1, 1.0)
SCAN_ROWS = 1_024


@dataclass(frozen=True)
class Setting:
    """Size of the synthetic problem."""

    examples: int = 5_000
    shards: int = 100
    d1: int = 64
    d2: int = 64
    r: int = 128
    repeats: int = 5
    threads: int = 1

    @property
    def recipe(self) -> Recipe:
        """Rank-one factors in bfloat16, the basis twice as wide as r."""
        return Recipe(curvature="svd", rank=1, factor_dtype="bf16", r=self.r)

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
    checkpoint = StoredCheckpoint(lake, setting.recipe, setting.record)
    _, first = fitted_row(checkpoint, LAYER, rows=SCAN_ROWS, device=CPU, refine_below=0.0, refine=False)
    commit_row(checkpoint, first)
    (row,) = lake.read(SVD_PRECONDITIONERS).to_dicts()
    snapshots, done = {}, 0
    for share in SHARES:
        wanted = max(1, round(share * setting.shards))
        write_shards(lake, setting, range(done, wanted), rng, version=1)
        done = wanted
        # A snapshot names its files, which stay: later changes of the lake do not change it.
        snapshots[share] = stored_factors(lake, setting.record, setting.recipe)
    return row, snapshots


def state_of(fit: CurvatureFit) -> CurvatureState:
    """Return the state of a fit of the curvature `svd`."""
    if not isinstance(fit.curvature, SvdCurvature):
        raise TypeError(f"expected the curvature `svd`, found {type(fit.curvature).__name__}")
    return fit.curvature.state


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
                    fitting = LayerFitting(curvature_of(setting.recipe), stored, LAYER, None, SCAN_ROWS, CPU)
                    return fitting.fit(row)

                update_seconds, updated = timed(lambda fit=fit: fit(previous))  # type: ignore[misc]
                rebuild_seconds, rebuilt = timed(lambda fit=fit: fit(None))  # type: ignore[misc]
                seconds.setdefault((share, "update"), []).append(update_seconds)
                seconds.setdefault((share, "rebuild"), []).append(rebuild_seconds)
                started = time.process_time()
                state_of(updated).spectrum(setting.r)
                spectrum.append(time.process_time() - started)
                difference = state_of(updated).image - state_of(rebuilt).image
                results[share] = {
                    "changed_rows": share,
                    "how": updated.history,
                    "rows_read": updated.rows_read,
                    "relative_difference": float(difference.norm() / state_of(rebuilt).image.norm()),
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


COLUMNS = {
    "rows changed": "{changed_rows:.0%}",
    "update, CPU s": "{update_seconds:.3f}",
    "rebuild, CPU s": "{rebuild_seconds:.3f}",
    "ratio": "{ratio:.3f}",
    "with eigenpairs": "{ratio_with_eigenpairs:.3f}",
    "factors computed again": "{factors_recomputed:.0%}",
    "difference": "{relative_difference:.0e}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "update_against_rebuild")
    torch.set_num_threads(setting.threads)
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
