"""Which stored rows an earlier version of this project read otherwise: their source is to be read again.

Chats that it wrote are known by their version of the source, which lacks the mark that a version has now where it stands for
chats; rows that it set aside, by the reason.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lorif_assets.data.columns import ContentFormat
from lorif_assets.lake.attribution_tables import REJECTED
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

_MARK = " chats-3"
_ANY_MARK = re.compile(r" chats-\d+$")


class _Otherwise(NamedTuple):
    """What tells chats that were read otherwise, in their messages and in their metadata."""

    messages: str
    metadata: str


# By the mark, the oldest last.
_READ_OTHERWISE = {
    # Calls by a role of their own were no one's answer; beside prompt and completion, tools were metadata.
    " chats-2": _Otherwise(r'"role": "(function_call|tool_call)"', r'"(tools|chat_template_kwargs)"\s*:'),
    # Keys of tool calls were sorted; what other columns held of a chat was metadata.
    "": _Otherwise(r'"(tool_calls|function_call|arguments)"\s*:', r'"(tools|system)"\s*:'),
}
# Decimals, floats and bytes were no ids.
_REFUSED_ID = ", not text or an integer"


def marked(source_version: str, examples: pa.Table) -> str:
    """Return the version of a source with the mark of how its chats were read, if it has any."""
    has_chats = pc.any(pc.equal(examples["format"], str(ContentFormat.MESSAGES))).as_py()
    return source_version + _MARK if has_chats else source_version


def unmarked(source_version: str) -> str:
    """Return the version of a source alone."""
    return _ANY_MARK.sub("", source_version)


def read_otherwise(lake: Lake, schema: TableSchema, parts: Collection[str]) -> set[str]:
    """Return the shards, or query sets, with chats that a version before today's mark read otherwise.

    Of a lake without chats this costs the table's log. A part that was looked at is not looked at again in a process, as
    long as it is what it was.

    Args:
        lake: where the table is.
        schema: `training_examples` or `query_examples`.
        parts: whose source is as it was when it was read.
    """
    (key,) = schema.partition_by
    hash_column = f"{key}_hash"
    old = file_constants(lake, schema, [key, hash_column, "format", "source_version"]).filter(
        pl.col("format") == str(ContentFormat.MESSAGES),
        pl.col(key).is_in(list(parts)),
        ~pl.col("source_version").str.ends_with(_MARK).fill_null(value=False),
    )
    return {
        part
        for part, version, source_version in old.select(key, hash_column, "source_version").iter_rows()
        if _reads_otherwise(lake, schema, part, version, source_version)
    }


def refused_ids(lake: Lake, stage: str) -> set[str]:
    """Return the partitions of a stage with rows that were set aside for an id of a type that is taken now."""
    found = lake.read(REJECTED, ["part", "reason"], stage=stage)
    return set(found.filter(pl.col("reason").str.ends_with(_REFUSED_ID))["part"])


# By lake, table, part and hash of its rows.
_found: dict[tuple[str, str, str, str], bool] = {}


def _reads_otherwise(lake: Lake, schema: TableSchema, part: str, version: str, source_version: str) -> bool:
    key = (lake.root, schema.name, part, version)
    if key not in _found:
        rows = lake.read(schema, ["messages", "metadata"], **{schema.partition_by[0]: part})
        changes = [found for mark, found in _READ_OTHERWISE.items() if mark or not _ANY_MARK.search(source_version)]
        tests = [
            pl.col(column).str.contains(getattr(found, column)) for found in changes for column in _Otherwise._fields
        ]
        _found[key] = not rows.filter(pl.any_horizontal(tests)).is_empty()
    return _found[key]
