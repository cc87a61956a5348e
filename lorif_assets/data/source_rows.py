"""Rows of a source as they came, with every column that it has, to be written again."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from lorif_assets.config.sources import Source
from lorif_assets.data.examples import sort_out
from lorif_assets.data.formats import readers
from lorif_assets.data.formats.reader import RawShard, ShardSlice
from lorif_assets.data.packed_rows import columns_by_token
from lorif_assets.data.rows.row_ids import text_of_id
from lorif_assets.data.shards import read_shard
from lorif_assets.data.stored_tokens import as_stored
from lorif_assets.errors import MismatchError, SettingsError, SourceError


@dataclass(frozen=True, eq=False)
class TypedRows:
    """Rows of a source whose format has types."""

    source: str
    values: pa.Table
    text_ids: str | None = None
    """The column of ids that are text whatever they were in the source, as sequences of packed rows have them."""

    def table(self) -> pa.Table:
        """Return the rows as a table."""
        return self.values

    def lines(self) -> list[str]:
        """Refuse to make JSON of them.

        Raises:
            SourceError: as it says.
        """
        raise SourceError(
            f"rows of source '{self.source}' have the types of Parquet, and are written as Parquet alone: name an output that "
            "ends in .parquet, or a folder"
        )

    def with_weights(self, column: str, weights: Float64[np.ndarray, " n"]) -> "TypedRows":
        """Return the rows with a weight each in a column of their own.

        Raises:
            SettingsError: they have a column of this name.
        """
        _refuse_second(self.source, column, self.values.column_names)
        values = self.values.append_column(column, pa.array(weights)).replace_schema_metadata(
            _without_features(self.values)
        )
        return replace(self, values=values)


@dataclass(frozen=True, eq=False)
class ObjectRows:
    """Rows of a source of JSON or text: each an object with fields of its own."""

    source: str
    values: Sequence[Mapping[str, Any]]
    text_ids: str | None = None
    """As those of `TypedRows`."""

    def table(self) -> pa.Table:
        """Return the rows as a table, with the types that Arrow finds for their values.

        Raises:
            SourceError: values of one column have no type in common.
        """
        columns = dict.fromkeys(name for row in self.values for name in row)
        return pa.table({name: self._array(name) for name in columns})

    def lines(self) -> list[str]:
        """Return the rows as lines of JSON, each an object as it came."""
        return [_line(row) for row in self.values]

    def with_weights(self, column: str, weights: Float64[np.ndarray, " n"]) -> "ObjectRows":
        """Return the rows with a weight each in a field of their own.

        Raises:
            SettingsError: they have a field of this name.
        """
        _refuse_second(self.source, column, {name for row in self.values for name in row})
        pairs = zip(self.values, weights.tolist(), strict=True)
        return replace(self, values=[{**row, column: weight} for row, weight in pairs])

    def _array(self, column: str) -> pa.Array:
        try:
            return pa.array([row.get(column) for row in self.values])
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise no_common_type(self.source, column, error) from error


SourceRows = TypedRows | ObjectRows


def no_common_type(source: str, column: str, error: Exception) -> SourceError:
    """Return the error of a column that Parquet cannot hold."""
    return SourceError(
        f"source '{source}': Parquet has no type for all values of the column {column!r} ({error}). Name an output that ends "
        "in .jsonl, which holds each row as it came"
    )


def source_rows(source: Source, piece: ShardSlice, base: Path, shard_hash: str, places: Sequence[int]) -> SourceRows:
    """Return rows of a shard by their places in it; of a row that sequences are packed in, those sequences.

    Args:
        source: that it is of.
        piece: the shard.
        base: folder where relative paths begin.
        shard_hash: of the examples that were read from it when it was attributed.
        places: of the rows, as `training_examples.row`, at least one, in their order.

    Raises:
        MismatchError: the source has other examples there by now.
        SourceError: it cannot be read.
    """
    raw = read_shard(source, piece, base)
    if sort_out(raw, source.columns, piece.shard).shard_hash != shard_hash:
        raise MismatchError(
            f"the shard {piece.shard!r} has changed since it was attributed ({piece.origin} of source '{source.name}'); run "
            "`lorif materialize` first"
        )
    table = readers()[piece.kind].table(source, piece, base)
    values = dict(raw.rows)
    chosen = [values[place] for place in places]
    ids = source.columns.id if raw.parts else None
    if ids is not None:
        chosen = [{**row, ids: text_of_id(row[ids], ids)} for row in chosen]
    if table is None:
        return ObjectRows(source.name, chosen, ids)
    rows = _at(table, np.array([raw.part(place).row for place in places]))
    return TypedRows(source.name, _as_sequences(rows, chosen, source, raw) if raw.parts else rows, ids)


def _as_sequences(table: pa.Table, rows: Sequence[Mapping[str, Any]], source: Source, raw: RawShard) -> pa.Table:
    """Return a table of the rows that sequences were packed in as one of the sequences."""
    for name in columns_by_token(source.columns, raw):
        kind = table.schema.field(name).type
        if pa.types.is_fixed_size_list(kind):
            kind = pa.list_(kind.value_type)
        # Token ids are what they were in other shards of the source: lists, or bytes.
        values = [row[name] if pa.types.is_nested(kind) else as_stored(row[name], source) for row in rows]
        table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    if (column := source.columns.id) is not None:
        own = pa.array([row[column] for row in rows], pa.string())
        table = table.set_column(table.column_names.index(column), column, own)
    return table.select(raw.columns).replace_schema_metadata(_without_features(table))


def _at(table: pa.Table, places: Int64[np.ndarray, " n"]) -> pa.Table:
    """Return the rows at ascending places, run by run: Arrow's `take` does not know the string views of some files."""
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    return pa.concat_tables(table.slice(int(run[0]), len(run)) for run in runs)


def _without_features(table: pa.Table) -> dict[bytes, bytes]:
    """Return what is said of a table but for what `datasets` says of its columns, which is wrong where they are others."""
    return {key: value for key, value in (table.schema.metadata or {}).items() if key != b"huggingface"}


def _refuse_second(source: str, column: str, names: Collection[str]) -> None:
    if column in names:
        raise SettingsError(f"source '{source}' has a column {column!r} already: give that of the weights another name")


def _line(values: Mapping[str, Any]) -> str:
    line = json.dumps(values, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can escape and UTF-8 cannot hold
        return json.dumps(values)
    return line
