"""Single rows of factors: the right ones, and no more bytes than their row groups hold."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.factor_row_groups import read_rows, row_group_starts, scan_bytes
from lorif_assets.lake.lake import FactorFile, Lake

ROWS, WIDTH = 1_000, 2_048
LAYERS = ("h.0.attn", "h.1.mlp")


def _values() -> dict[str, list[bytes]]:
    rng = np.random.default_rng(0)
    return {layer: [rng.bytes(WIDTH) for _ in range(ROWS)] for layer in LAYERS}


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Lake, FactorFile]:
    lake = Lake(root=str(tmp_path))
    constants = dict.fromkeys(GRADIENT_FACTORS.columns.names)
    constants |= {"checkpoint": "c", "shard": "s"}
    rows = pa.table(
        {
            **{
                name: pa.array([value] * ROWS, GRADIENT_FACTORS.columns.field(name).type)
                for name, value in constants.items()
            },
            **{layer: pa.array(values, pa.large_binary()) for layer, values in _values().items()},
        }
    )
    lake.replace(GRADIENT_FACTORS, {"checkpoint": "c", "shard": "s"}, rows)
    (file,) = lake.factor_files("c")
    return lake, file


@pytest.mark.parametrize("rows", [[0], [999], [0, 127, 128, 500, 999], list(range(ROWS)), [300, 301]])
def test_the_rows_asked_for_come_in_their_order(stored: tuple[Lake, FactorFile], rows: list[int]) -> None:
    read = read_rows(*stored, ["h.1.mlp"], rows)
    assert read.batch.column("h.1.mlp").to_pylist() == [_values()["h.1.mlp"][row] for row in rows]
    assert read.batch.schema.names == ["h.1.mlp"]


def test_a_row_costs_its_row_group_and_all_rows_cost_a_scan(stored: tuple[Lake, FactorFile]) -> None:
    lake, file = stored
    starts = row_group_starts(lake, file)
    assert starts[0] == 0
    assert starts[-1] == ROWS
    whole = scan_bytes(lake, [file], LAYERS)
    assert whole >= 2 * ROWS * WIDTH
    one = read_rows(lake, file, LAYERS, [5]).bytes_read
    assert one == read_rows(lake, file, LAYERS, list(range(starts[1]))).bytes_read
    assert one < 1.2 * whole * starts[1] / ROWS
    assert read_rows(lake, file, LAYERS, list(range(ROWS))).bytes_read == whole
    assert read_rows(lake, file, LAYERS[:1], [5]).bytes_read < one
