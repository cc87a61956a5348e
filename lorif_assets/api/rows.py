"""Examples and queries as a caller has them, in the one form that all sources have."""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl
import pyarrow as pa

from lorif_assets.config.sources import Columns
from lorif_assets.data.content.columns import refuse_repeated_columns
from lorif_assets.data.content.query_objectives import ScalarRules
from lorif_assets.data.examples import NormalisedShard, normalise
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.packed_rows import unpacked
from lorif_assets.errors import SourceError

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = "Iterable[str | Mapping[str, Any]] | pl.DataFrame | pa.Table | pd.DataFrame"
"""Texts; mappings with text, prompt and completion, messages or input_ids; or such rows as a table of polars, pyarrow or
pandas, or a `datasets.Dataset`."""

_ID = "id"


def normalised_rows(
    rows: Rows, columns: Columns | None, name: str, scalar_rules: ScalarRules | None = None
) -> NormalisedShard:
    """Return rows checked, with ids and content hashes, as those of a source are; those that cannot be used are set aside.

    A row's id is that of the column that `columns` names, or else of `id`; where there is none, its number, from 0. Of
    examples, each sequence that is packed in a row of token ids is one.

    Args:
        rows: as a caller has them.
        columns: which columns hold what; default: by their names.
        name: of the whole, for ids and messages.
        scalar_rules: of queries, which may say what they ask about.

    Raises:
        SourceError: they are in no form of `Rows`, there are none, none can be used, or what they hold cannot be told.
    """
    listed = [_row(number, row, name) for number, row in enumerate(_each(rows, name))]
    if not listed:
        raise SourceError(f"there are no {name}: expected one text or row at least")
    found = tuple(dict.fromkeys(column for row in listed for column in row))
    roles = columns or Columns()
    if roles.id is None:
        roles = roles.model_copy(update={"id": _ID})
        if _ID not in found:
            found = (*found, _ID)
            listed = [{**row, _ID: str(number)} for number, row in enumerate(listed)]
    raw = RawShard(f"the {name}", found, tuple(enumerate(listed)))
    return normalise(unpacked(raw, roles) if scalar_rules is None else raw, roles, name, scalar_rules)


def _each(rows: object, name: str) -> Iterable[Any]:
    if isinstance(rows, pl.DataFrame):
        return rows.iter_rows(named=True)
    if isinstance(rows, pa.Table):
        refuse_repeated_columns(rows.column_names, f"the table of {name}")
        return rows.to_pylist()
    # Whoever has a table of pandas has imported it.
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        return _from_pandas(rows, name).iter_rows(named=True)
    # Iterating over any other kind of table gives columns or their names.
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable) or hasattr(type(rows), "columns"):
        raise SourceError(
            f"the {name} are one {type(rows).__name__}; expected a list of texts or of rows, or a table of polars, pyarrow or "
            "pandas, or a `datasets.Dataset`"
        )
    return rows


def _from_pandas(table: "pd.DataFrame", name: str) -> pl.DataFrame:
    refuse_repeated_columns([str(column) for column in table.columns], f"the table of {name}")
    try:
        return pl.from_pandas(table)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"the pandas table of {name} cannot be read: {error}. Each column has to hold values of one type; or give a list "
            "of mappings"
        ) from error


def _row(number: int, row: object, name: str) -> dict[str, Any]:
    if isinstance(row, str):
        return {"text": row}
    if not isinstance(row, Mapping):
        raise SourceError(
            f"row {number} of the {name} is a {type(row).__name__}; expected a text, or a mapping with text, prompt and "
            "completion, messages or input_ids"
        )
    return dict(row)
