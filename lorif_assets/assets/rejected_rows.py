"""Writing what an asset sets aside to the table `rejected`."""

import pyarrow as pa

from lorif_assets.lake.attribution_tables import REJECTED
from lorif_assets.lake.lake import Lake


def with_constants(rows: pa.Table, constants: dict[str, str]) -> pa.Table:
    """Return the rows with columns that hold one value throughout, in place of those of the same names."""
    columns = {name: rows[name] for name in rows.column_names}
    columns |= {name: pa.array([value] * rows.num_rows, pa.string()) for name, value in constants.items()}
    return pa.table(columns)


def replace_rejected(lake: Lake, stage: str, part: str, rejected: pa.Table) -> None:
    """Replace the rows that `stage` set aside for one partition by these (example_id, row, reason, excerpt)."""
    lake.replace(REJECTED, {"stage": stage, "part": part}, with_constants(rejected, {"stage": stage, "part": part}))
