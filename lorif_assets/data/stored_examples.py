"""Training examples and queries as the lake holds them."""

import polars as pl

from lorif_assets.errors import MismatchError
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake


def stored_shard_hashes(lake: Lake) -> dict[str, str]:
    """Return the hash of the stored training examples of each shard."""
    return dict(file_constants(lake, TRAINING_EXAMPLES, ["shard", "shard_hash"]).iter_rows())


def stored_query_set_hashes(lake: Lake) -> dict[str, str]:
    """Return the hash of the stored queries of each set."""
    return dict(file_constants(lake, QUERY_EXAMPLES, ["query_set", "query_set_hash"]).iter_rows())


def stored_query_set(lake: Lake, query_set: str) -> pl.DataFrame:
    """Return the rows of a query set in `query_examples`, in their order.

    Raises:
        MismatchError: there are none.
    """
    rows = lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row")
    if rows.is_empty():
        raise MismatchError(f"the query set {query_set!r} is not in `query_examples`; materialize it there first")
    return rows
