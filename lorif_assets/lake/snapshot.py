"""The lake as it is at one look: each table is opened once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True)
class LakeSnapshot(Lake):
    """A lake whose tables stay at the versions at which they were first opened.

    For a look that needs the same tables again and again and writes none: opening a table reads its whole log, every file's
    name and statistics. A snapshot must not outlive the look: commits made in the meantime are for the next look, with a new
    snapshot.
    """

    _opened: dict[str, "DeltaTable | None"] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, lake: Lake) -> Self:
        """Return a snapshot of a lake; nothing is opened yet."""
        return cls(root=lake.root, storage_options=lake.storage_options)

    def replace(self, schema: TableSchema, partition: Mapping[str, str], rows: pa.Table) -> int:
        """Refuse to write: the snapshot would not show it.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"a snapshot of the lake is for reading; write the {rows.num_rows} rows of {schema.name} with {dict(partition)} by "
            "the lake itself"
        )

    def remove(self, schema: TableSchema, **values: Collection[str]) -> None:
        """Refuse to write: the snapshot would not show it.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"a snapshot of the lake is for reading; remove partitions of {schema.name} by {', '.join(values)} "
            "from the lake itself"
        )

    def table(self, schema: TableSchema) -> "DeltaTable | None":
        """Return the table as it was when first opened, or None if it did not exist.

        Raises:
            TableError: as `Lake.table`.
        """
        if schema.name not in self._opened:
            self._opened[schema.name] = super().table(schema)
        return self._opened[schema.name]
