"""What Dagster shows of examples that were read: how many, how large, how the first ones begin, and what was set aside."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

from lorif_assets.data.examples import NormalisedShard
from lorif_assets.data.rows.rejection_reasons import count_reasons
from lorif_assets.pages import markdown


def example_metadata(examples: NormalisedShard) -> dict[str, Any]:
    """Return the metadata of a materialization of training or query examples."""
    first = examples.examples.slice(0, 3).to_pylist()
    lines = (f"{markdown.code(row['example_id'])} {markdown.code(_excerpt(row))}" for row in first)
    return {
        "dagster/row_count": examples.examples.num_rows,
        **rejected_metadata(examples.rejected),
        "bytes": examples.examples.nbytes,
        "first_rows": dg.MetadataValue.md(markdown.bullets(lines)),
    }


def rejected_metadata(rejected: pa.Table, notices: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return the metadata of rows that were set aside and, by count, of what the tokens of the others do not hold."""
    return {
        "rejected_rows": rejected.num_rows,
        **({"rejected_reasons": count_reasons(rejected["reason"].to_pylist())} if rejected.num_rows else {}),
        **({"notices": dict(notices)} if notices else {}),
    }


def _excerpt(row: dict[str, Any]) -> str:
    content = row["text"] or row["completion"] or row["messages"] or str(row["input_ids"])
    return str(content[:120])
