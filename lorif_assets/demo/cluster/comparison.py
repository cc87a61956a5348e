"""Two lakes of the same project, table by table: equal bit for bit, to floating point, or not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from lorif_assets.lake.checksums import named_checksum
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.tables import FILE_COLUMNS, PAGE_TABLES, TABLES

_TOLERANCE = 1e-4
"""Of the largest value of a column: sums of single precision that are joined in another order."""
_KEYS = ("stage", "part", "checkpoint", "layer", "shard", "query_set", "query_id", "side", "rank", "row", "example_id")
# By table, what says where something is, or is made of such.
_PLACES = {
    **{schema.name: ("uri", "page") for schema in PAGE_TABLES},
    "svd_preconditioners": ("ledger",),
    "ekfac_preconditioners": ("ledger",),
}
_SWAPPED = ("example_id", "shard")


@dataclass(frozen=True)
class TableComparison:
    """One table in both lakes: its rows, and how far they are from each other.

    `difference` is the largest, of the largest value of its column; `swapped` counts rows that name another example at
    their rank, with the same score to floating point; `other` are columns that differ beyond both.
    """

    table: str
    rows: int
    other_rows: int
    difference: float = 0.0
    swapped: int = 0
    other: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the tables are equal to floating point."""
        return self.rows == self.other_rows and not self.other and self.difference <= _TOLERANCE

    def __str__(self) -> str:
        if self.rows != self.other_rows:
            return f"other rows: {self.other_rows:,}"
        if self.other:
            return f"differs in {', '.join(self.other)}"
        swapped = f", {self.swapped} at a neighbour's rank" if self.swapped else ""
        return (f"to {self.difference:.0e} of the largest value" if self.difference else "bit for bit") + swapped


def compared(one: Lake, other: Lake) -> Iterator[TableComparison]:
    """Yield the comparison of each table that either lake has rows of, whatever its files are called."""
    for schema in TABLES.values():
        left, right = _rows(one, schema), _rows(other, schema)
        if left.height or right.height:
            yield compared_rows(schema.name, left, right)


def compared_rows(name: str, left: pl.DataFrame, right: pl.DataFrame) -> TableComparison:
    """Compare the rows of a table, in whatever order they are."""
    if left.height != right.height or left.columns != right.columns:
        other = () if left.height != right.height else tuple({*left.columns} ^ {*right.columns})
        return TableComparison(name, left.height, right.height, other=other)
    keys = [key for key in _KEYS if key in left.columns]
    if "rank" in keys:
        keys = [key for key in keys if key not in _SWAPPED]
    left, right = left.sort(keys), right.sort(keys)
    named = [column for column in _SWAPPED if "rank" in keys and column in left.columns]
    swapped = max((int(left[column].ne_missing(right[column]).sum()) for column in named), default=0)
    # What else is said of an example goes with it to the neighbour's rank.
    pairs = [(left, right)]
    if swapped:
        pairs.append(_by_example(left, right, [*(key for key in keys if key != "rank"), *named]))
    difference, others = 0.0, []
    for column in left.columns:
        if column in named:
            continue
        apart = min(_difference(here[column], there[column]) for here, there in pairs)
        if apart == float("inf"):
            others.append(column)
        else:
            difference = max(difference, apart)
    return TableComparison(name, left.height, right.height, difference, swapped, tuple(others))


def _by_example(left: pl.DataFrame, right: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of examples that both have."""
    return (
        left.join(right, on=keys, how="semi", nulls_equal=True).sort(keys),
        right.join(left, on=keys, how="semi", nulls_equal=True).sort(keys),
    )


def _difference(here: pl.Series, there: pl.Series) -> float:
    """Return how far numbers are from each other, of the largest; infinity for what differs in anything else."""
    if here.equals(there):
        return 0.0
    if not (here.dtype.is_float() or (isinstance(here.dtype, pl.List) and here.dtype.inner.is_float())):
        return float("inf")
    if isinstance(here.dtype, pl.List):
        here, there = here.explode(), there.explode()
    if len(here) != len(there) or not here.is_null().equals(there.is_null()):
        return float("inf")
    apart, size = (here - there).abs().max(), here.abs().max()
    return float(apart) / float(size) if size else float("inf")  # type: ignore[arg-type]


def _rows(lake: Lake, schema: TableSchema) -> pl.DataFrame:
    table = lake.table(schema)
    if table is None:
        return pl.DataFrame()
    left_out = _PLACES.get(schema.name, ())
    # Columns of layers are not among those that the schema declares.
    columns = sorted(field.name for field in table.schema().fields if field.name not in left_out)
    rows = lake.read(schema, columns)
    files = FILE_COLUMNS.get(schema.name)
    if files:
        # Names are drawn anew, and end with the checksum of what the file holds.
        rows = rows.with_columns(pl.col(files).map_elements(named_checksum, pl.String))
    return rows
