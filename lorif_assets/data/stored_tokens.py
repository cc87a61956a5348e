"""Token ids that a source stores as bytes, as the settings say that they are to be read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lorif_assets.config.sources import Source
from lorif_assets.data.formats.reader import MalformedRow, RawShard
from lorif_assets.data.rows.rejected import excerpt


def with_token_ids(raw: RawShard, source: Source) -> RawShard:
    """Return a shard with lists of token ids, and of labels, in the place of bytes; a row of other bytes is malformed."""
    if source.token_type is None:
        return raw
    kind = np.dtype(source.token_type).newbyteorder("<")
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
