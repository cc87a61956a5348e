"""What Dagster shows of examples that were read: how many, how large, and how the first ones begin."""

from typing import Any

import dagster as dg

from lorif_assets.data.examples import NormalisedShard


def example_metadata(examples: NormalisedShard) -> dict[str, Any]:
    """Return the metadata of a materialization of training or query examples."""
    first = examples.examples.slice(0, 3).to_pylist()
    lines = "\n".join(f"* `{row['example_id']}` {_excerpt(row)}" for row in first)
    return {
        "dagster/row_count": examples.examples.num_rows,
        "rejected_rows": examples.rejected.num_rows,
        "bytes": examples.examples.nbytes,
        "first_rows": dg.MetadataValue.md(lines),
    }


def _excerpt(row: dict[str, Any]) -> str:
    content = row["text"] or row["completion"] or row["messages"] or str(row["input_ids"])
    return " ".join(content[:120].split()).replace("`", "'")
