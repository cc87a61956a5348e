"""Which stored rows an earlier version of this project read otherwise: their source is to be read again.

Chats and token ids that it wrote are known by their version of the source, which lacks the mark that a version has now where it
stands for them; rows that it set aside, by the reason.
"""

import re
from collections.abc import Collection, Mapping

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lorif_assets.data.content.columns import ContentFormat
from lorif_assets.data.content.token_masks import SEQUENCE_ENDS, SEQUENCE_NUMBERS
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

_MARKS = {ContentFormat.MESSAGES: " chats-4", ContentFormat.INPUT_IDS: " ids-3"}
_ANY_MARK = re.compile(r" (chats|ids)-\d+$")


# What tells rows that were read otherwise, by their format, the mark (the oldest last) and the column that shows it.
_READ_OTHERWISE: Mapping[ContentFormat, Mapping[str, Mapping[str, str]]] = {
    ContentFormat.MESSAGES: {
        # Nulls in the arguments of calls that were JSON text were left out.
        " chats-3": {"messages": r'"tool_calls"\s*:'},
        # Calls by a role of their own were no one's answer; beside prompt and completion, tools were metadata.
        " chats-2": {
            "messages": r'"role": "(function_call|tool_call)"',
            "metadata": r'"(tools|chat_template_kwargs)"\s*:',
        },
        # Keys of tool calls were sorted; what other columns held of a chat was metadata.
        "": {"messages": r'"(tool_calls|function_call|arguments)"\s*:', "metadata": r'"(tools|system)"\s*:'},
    },
    ContentFormat.INPUT_IDS: {
        # Ends and numbers of sequences that are packed in one row were metadata.
        " ids-2": {"metadata": rf'"({"|".join((*SEQUENCE_ENDS, *SEQUENCE_NUMBERS))})"\s*:'},
        # Masks of the loss were, and so were positions and lengths.
        "": {"metadata": r'"(completion_mask|assistant_masks|loss_mask|position_ids|seq_lengths)"\s*:'},
    },
}
# Decimals, floats and bytes were no ids, and rows of several sequences no examples.
_REFUSED = r", not text or an integer$|, each of which the model saw alone: "


def marked(source_version: str, examples: pa.Table) -> str:
    """Return the version of a source with the mark of how its chats or token ids were read, if it has any."""
    formats = pc.unique(examples["format"]).to_pylist()
    return source_version + next((mark for kind, mark in _MARKS.items() if str(kind) in formats), "")


def unmarked(source_version: str) -> str:
    """Return the version of a source alone."""
    return _ANY_MARK.sub("", source_version)


def read_otherwise(lake: Lake, schema: TableSchema, parts: Collection[str]) -> set[str]:
    """Return the shards, or query sets, with chats or token ids that a version before today's mark read otherwise.

    Of a lake without either this costs the table's log. A part that was looked at is not looked at again in a process, as
    long as it is what it was.

    Args:
        lake: where the table is.
        schema: `training_examples` or `query_examples`.
        parts: whose source is as it was when it was read.
    """
    (key,) = schema.partition_by
    hash_column = f"{key}_hash"
    old = file_constants(lake, schema, [key, hash_column, "format", "source_version"]).filter(
        pl.col("format").is_in(list(map(str, _MARKS))),
        pl.col(key).is_in(list(parts)),
        ~pl.col("source_version").str.contains("|".join(f"{mark}$" for mark in _MARKS.values())).fill_null(value=False),
    )
    return {
        part
        for part, version, source_version, kind in old.select(key, hash_column, "source_version", "format").iter_rows()
        if _reads_otherwise(lake, schema, part, version, source_version, ContentFormat(kind))
    }


def refused_before(lake: Lake, stage: str) -> set[str]:
    """Return the partitions of a stage with rows that were set aside for what is taken now: types of ids, packed sequences."""
    found = lake.read(REJECTED, ["part", "reason"], stage=stage)
    return set(found.filter(pl.col("reason").str.contains(_REFUSED))["part"])


# By lake, table, part and hash of its rows.
_found: dict[tuple[str, str, str, str], bool] = {}


def _reads_otherwise(
    lake: Lake, schema: TableSchema, part: str, version: str, source_version: str, kind: ContentFormat
) -> bool:
    key = (lake.root, schema.name, part, version)
    if key not in _found:
        rows = lake.read(schema, ["messages", "metadata"], **{schema.partition_by[0]: part})
        changes = _changes_since(source_version, kind)
        tests = [pl.col(column).str.contains(pattern) for found in changes for column, pattern in found.items()]
        _found[key] = not rows.filter(pl.any_horizontal(tests)).is_empty()
    return _found[key]


def _changes_since(source_version: str, kind: ContentFormat) -> list[Mapping[str, str]]:
    """Return what was read otherwise by the mark of a version, or by an earlier one than it has."""
    found = _ANY_MARK.search(source_version)
    since = found[0] if found else ""
    marks = list(_READ_OTHERWISE[kind])
    return [_READ_OTHERWISE[kind][mark] for mark in marks[: marks.index(since) + 1]]
