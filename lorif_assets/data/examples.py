"""From a source's raw rows to examples: one form for all sources, bad rows set aside, content hashed."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.sources import Columns
from lorif_assets.data.content.columns import ColumnRoles, column_roles, content_format
from lorif_assets.data.content.example_content import read_content
from lorif_assets.data.content.query_objectives import ScalarRules, objective_fields, read_objective
from lorif_assets.data.content.weighted_sets import WEIGHTED, member_content, read_members
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.rows.arrow_values import unreadable
from lorif_assets.data.rows.json_values import NestedTooDeepError, json_value
from lorif_assets.data.rows.rejected import RejectedRow, encodable, excerpt, rejected_table
from lorif_assets.data.rows.rejection_reasons import count_reasons, in_words
from lorif_assets.data.rows.row_ids import text_of_id
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.errors import SourceError
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES

_FIRST_ROWS = 3
"""Of a shard without a usable row, whose reasons are told one by one."""


@dataclass(frozen=True)
class NormalisedShard:
    """A shard's examples, the rows set aside, and the hash of those that were not.

    `examples` has the columns of `training_examples`; `rejected` has example_id, row, reason and excerpt. For a query
    set, the columns shard, example_id and shard_hash hold its query_set, query_id and query_set_hash.
    """

    examples: pa.Table
    rejected: pa.Table
    shard_hash: str


def normalise(raw: RawShard, columns: Columns, shard: str, scalar_rules: ScalarRules | None = None) -> NormalisedShard:
    """Examples of one shard, in the order of its rows.

    An example's id is its id column as text, else what its format gives as one, else `<shard>/<row>`, with `#` and its number
    where it is a sequence that was packed in the row. Its content hash covers the content alone; the shard's hash covers ids,
    contents and metadata of the accepted rows, in order. Rows are set aside when their content is null, empty, of the wrong
    type or without loss, and when their id is null or was used by an earlier row. Rows of a query set, for which there are
    `scalar_rules`, may also say what they ask about; examples then have a column `objective`, which the content's hash covers
    where it is not null.

    Raises:
        SourceError: the content columns cannot be told, or no row can be used.
    """
    sorted_out = sort_out(raw, columns, shard, scalar_rules)
    require_usable(raw, sorted_out)
    return sorted_out


def require_usable(raw: RawShard, sorted_out: NormalisedShard) -> None:
    """Refuse a shard of which no row can be used.

    Raises:
        SourceError: as it says.
    """
    if not sorted_out.examples.num_rows:
        raise SourceError(_nothing_usable(raw, sorted_out.rejected.to_pylist()))


def sort_out(raw: RawShard, columns: Columns, shard: str, scalar_rules: ScalarRules | None = None) -> NormalisedShard:
    """The same where it may be that no row can be used.

    Raises:
        SourceError: the content columns cannot be told.
    """
    rejected = [RejectedRow(f"{shard}/{raw.part(m.row)}", m.row, m.reason, m.excerpt) for m in raw.malformed]
    schema = TRAINING_EXAMPLES.columns
    if scalar_rules is not None:
        schema = schema.append(QUERY_EXAMPLES.columns.field("objective"))
    if not raw.rows:
        return _shard([], rejected, schema)
    if columns.id is None:
        columns = columns.model_copy(update={"id": raw.id_column})
    fields = objective_fields(raw.columns, columns.metadata) if scalar_rules is not None else ()
    names = tuple(name for name in raw.columns if name not in fields)
    if WEIGHTED in fields and not {"text", "messages", "input_ids", "prompt", "completion"} & {*names}:
        # A weighted set has prompts and completions of its own.
        names = (*names, "prompt", "completion")
    roles = column_roles(columns, names, raw.origin)
    used = {*roles.columns, *columns.prompt_columns, *fields}
    examples: list[dict[str, Any]] = []
    row_of_id: dict[str, int] = {}
    for row, values in raw.rows:
        example_id = f"{shard}/{raw.part(row)}"
        try:
            _refuse_unreadable(values, used)
            example_id = _example_id(values, roles, default=example_id)
            content = _first_member(values, roles) if WEIGHTED in fields else read_content(values, roles)
            metadata = _metadata(values, roles)
            if example_id in row_of_id:
                raise UnusableRowError(f"duplicate id: row {row_of_id[example_id]} has it already")
            kind = content_format(content)
            asked = read_objective(values, fields, kind, content, scalar_rules) if scalar_rules is not None else None
        except (UnusableRowError, NestedTooDeepError) as reason:
            rejected.append(RejectedRow(example_id, row, str(reason), excerpt(values)))
            continue
        row_of_id[example_id] = row
        examples.append(
            {
                "shard": shard,
                "example_id": example_id,
                "row": row,
                "format": str(kind),
                **content,
                "content_hash": content_hash([kind, content] if asked is None else [kind, content, asked]),
                "metadata": metadata,
                **({} if asked is None else {"objective": asked}),
            }
        )
    return _shard(examples, rejected, schema)


def _shard(
    examples: Sequence[Mapping[str, Any]], rejected: Sequence[RejectedRow], schema: pa.Schema
) -> NormalisedShard:
    shard_hash = hash_of_rows(examples)
    table = pa.Table.from_pylist([{**e, "shard_hash": shard_hash} for e in examples], schema)
    return NormalisedShard(table, rejected_table(rejected), shard_hash)


def hash_of_rows(examples: Iterable[Mapping[str, Any]]) -> str:
    """Return the hash of a shard with these rows of `training_examples`, in their order."""
    return content_hash([[e["example_id"], e["content_hash"], e["metadata"]] for e in examples])


def _example_id(values: Mapping[str, Any], roles: ColumnRoles, default: str) -> str:
    if roles.id is None:
        return default
    return text_of_id(values.get(roles.id), roles.id)


def _first_member(values: Mapping[str, Any], roles: ColumnRoles) -> dict[str, Any]:
    """Return what the first member of a row's weighted set says; of a row without one, what the row says.

    Raises:
        UnusableRowError: it cannot be read, or the row says something beside its set.
    """
    if values.get(WEIGHTED) in (None, ""):
        return read_content(values, roles)
    if own := [column for column in roles.content.values() if values.get(column)]:
        raise UnusableRowError(f"beside '{WEIGHTED}', the row has {' and '.join(own)} of its own; put it into the set")
    return member_content(read_members(values[WEIGHTED])[0])


def _refuse_unreadable(values: Mapping[str, Any], used: Collection[str]) -> None:
    for column, reason in unreadable(values.items()).items():
        if column in used:
            raise UnusableRowError(
                f"column '{column}' cannot be read: {reason}. A column that is not needed can be left out by columns.metadata"
            )


def _metadata(values: Mapping[str, Any], roles: ColumnRoles) -> str:
    kept = {name: json_value(values.get(name)) for name in roles.metadata}
    return encodable(json.dumps(kept, ensure_ascii=False, sort_keys=True))


def _nothing_usable(raw: RawShard, rejected: Sequence[Mapping[str, Any]]) -> str:
    if not rejected:
        return f"{raw.origin}: empty, no rows. Write data to it, or take it out of the sources."
    first = "; ".join(f"row {bad['row']}: {bad['reason']}" for bad in rejected[:_FIRST_ROWS])
    reasons = [bad["reason"] for bad in rejected]
    counted = f"; by reason: {in_words(count_reasons(reasons))}" if len(reasons) > _FIRST_ROWS else ""
    return (
        f"{raw.origin}: none of {len(rejected)} rows can be used ({first}{counted}). Correct the data or the `columns`."
    )
