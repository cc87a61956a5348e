"""Token ids that a source stores as bytes, as the settings say that they are to be read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lorif_assets.config.sources import Source, TokenType
from lorif_assets.data.formats.reader import MalformedRow, RawShard
from lorif_assets.data.rows.rejected import excerpt


def with_token_ids(raw: RawShard, source: Source) -> RawShard:
    """Return a shard with lists of token ids, and of labels, in the place of bytes; a row of other bytes is malformed."""
    if source.token_type is None:
        return raw
    kind = _number(source.token_type)
    columns = (source.columns.input_ids or "input_ids", source.columns.labels or "labels")
    rows: list[tuple[int, Mapping[str, Any]]] = []
    malformed = list(raw.malformed)
    for row, values in raw.rows:
        stored = {column: value for column in columns if isinstance(value := values.get(column), bytes)}
        if broken := [column for column, value in stored.items() if len(value) % kind.itemsize]:
            size = len(stored[broken[0]])
            reason = f"{broken[0]} has {size:,} bytes, which are no whole number of {source.token_type}"
            malformed.append(MalformedRow(row, reason, excerpt(values)))
        else:
            ids = {column: np.frombuffer(value, kind).tolist() for column, value in stored.items()}
            rows.append((row, {**values, **ids}))
    return replace(raw, rows=tuple(rows), malformed=tuple(malformed))


def as_stored(value: Any, source: Source) -> Any:
    """Return what a source would store for a list of token ids as bytes; anything else as it is."""
    if source.token_type is None or not isinstance(value, list):
        return value
    return np.array(value, _number(source.token_type)).tobytes()


def _number(token_type: TokenType) -> np.dtype[Any]:
    return np.dtype(token_type).newbyteorder("<")
