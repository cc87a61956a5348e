"""Rows that cannot be used: set aside with a reason, never dropped silently."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from lorif_assets.data.rows.json_values import NestedTooDeepError, json_value
from lorif_assets.data.rows.rejection_reasons import count_reasons
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_writing import with_constants

_EXCERPT_LENGTH = 200
# A reason may name what the row holds: a role, a key, what a template says of it.
_LONGEST_REASON = 1_000
_STAGES_OF_SOURCES = ("training_examples", "query_examples")


@dataclass(frozen=True)
class RejectedRow:
    """A row set aside: which, why, and how it begins."""

    example_id: str
    row: int
    reason: str
    excerpt: str


def rejected_table(rejected: Iterable[RejectedRow]) -> pa.Table:
    """Columns example_id, row, reason and excerpt of the lake's table `rejected`, in the order of rows."""
    kinds = pa.schema([REJECTED.columns.field(field.name) for field in fields(RejectedRow)])
    rows = [{**asdict(bad), "reason": encodable(_cut(bad.reason))} for bad in sorted(rejected, key=lambda bad: bad.row)]
    return pa.Table.from_pylist(rows, schema=kinds)


def replace_rejected(
    lake: Lake, stage: str, part: str, rejected: pa.Table, place: Callable[[int], str | None] = lambda _row: None
) -> None:
    """Replace the rows that a stage set aside for one partition by these (example_id, row, reason, excerpt).

    `place` says where a person finds a row.
    """
    partition = {"stage": stage, "part": part}
    places = pa.array([place(row) for row in rejected["row"].to_pylist()], pa.string())
    lake.replace(REJECTED, partition, with_constants(rejected.append_column("place", places), partition))


def rejected_counts(
    lake: Lake, stage: str, checkpoints: Collection[str], query_set: str | None = None
) -> dict[str, int]:
    """Return how many rows a stage has set aside, by kind of reason.

    Args:
        lake: where the table `rejected` is.
        stage: the asset.
        checkpoints: of a stage that reads examples by a checkpoint's tokenizer, those that count.
        query_set: of a stage whose partitions are query sets, the one that counts; default: all.
    """
    found = lake.read(REJECTED, ["part", "reason"], stage=stage)
    reasons = []
    for part, reason in found.iter_rows():
        checkpoint, _, name = ("", "", part) if stage in _STAGES_OF_SOURCES else part.partition("|")
        if (not checkpoint or checkpoint in checkpoints) and query_set in {None, name}:
            reasons.append(reason)
    return count_reasons(reasons)


def excerpt(values: Mapping[str, Any]) -> str:
    """The beginning of a row as JSON, in valid Unicode."""
    shown = {name: _shown(value) for name, value in values.items() if value is not None}
    return encodable(json.dumps(shown, ensure_ascii=False)[:_EXCERPT_LENGTH])


def _cut(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"


def _shown(value: Any) -> Any:
    try:
        return json_value(value)
    except NestedTooDeepError as error:
        return f"<{error}>"


def encodable(text: str) -> str:
    """Text with lone surrogates, which JSON may hold and UTF-8 may not, replaced by `?`."""
    return text.encode("utf-8", "replace").decode()
