"""Comparing what two engines stored: equal in everything but names of files, times and the rounding of scores."""

from collections.abc import Sequence

import polars as pl
from polars.testing import assert_frame_equal

from lorif_assets.lake.attribution_tables import (
    EKFAC_PRECONDITIONERS,
    GRADIENT_FACTORS,
    KFAC_BASES,
    QUERY_SCORES,
    QUERY_SUMMARIES,
    SVD_PRECONDITIONERS,
)
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.delta_paths import scan_table
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

_BIT_FOR_BIT = (GRADIENT_FACTORS, KFAC_BASES, EKFAC_PRECONDITIONERS, SVD_PRECONDITIONERS, REJECTED)
_TO_FLOATING_POINT = (QUERY_SCORES, QUERY_SUMMARIES)
# Files have random names, and ledgers hold names of files.
_NAMES = ("uri", "state_uri", "fisher", "ledger")


def assert_same_tables(found: Lake, expected: Lake) -> None:
    for schema in _BIT_FOR_BIT:
        assert_frame_equal(_rows(found, schema), _rows(expected, schema), check_exact=True)
    for schema in _TO_FLOATING_POINT:
        assert_frame_equal(_rows(found, schema), _rows(expected, schema), rel_tol=1e-5, abs_tol=1e-6)


def _rows(lake: Lake, schema: TableSchema) -> pl.DataFrame:
    if schema.open_columns is None:
        rows = lake.read(schema)
    else:
        table = lake.table(schema)
        rows = pl.DataFrame() if table is None else scan_table(table).collect()
    rows = rows.drop([name for name in _NAMES if name in rows.columns])
    return rows.sort(_keys(rows.columns))


def _keys(columns: Sequence[str]) -> list[str]:
    known = ("stage", "part", "checkpoint", "layer", "shard", "row", "query_set", "query_id", "side", "rank")
    return [name for name in known if name in columns]
