"""Which local paths a Delta table can have, and how polars reads one whose address is percent-encoded."""

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from deltalake import DeltaTable

# Tried with delta-rs 1.6, which makes a URL of every path: it decodes a percent sign twice, and refuses the others.
_REFUSED = frozenset("%*[]\\^|")


def refused_character(path: str) -> str | None:
    """Return the first character of a local path that delta-rs cannot read or write a table below; None of a URL."""
    if "://" in path:
        return None
    return next((character for character in path if character in _REFUSED or ord(character) < 0x20), None)


def scan_table(table: "DeltaTable") -> pl.LazyFrame:
    """Return the table's rows, to be queried lazily.

    polars looks for a local table's files at its URL, where a space is `%20`; pyarrow's reader goes by delta-rs's own
    file system, and takes the filters too, but reads slower.
    """
    encoded = table.table_uri.startswith("file://") and "%" in table.table_uri
    return pl.scan_delta(table, use_pyarrow=encoded)
