"""The lake as one look finds it: each table is opened once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True)
class LakeSnapshot(Lake):
    """A lake whose tables stay at the versions at which they were first asked for.

    For a look that asks for the same tables again and again and writes none: opening one reads its whole log, every file's
    name and statistics. It must not outlive the look; what is committed meanwhile is for the next one, with a new snapshot.
    """

    _opened: dict[str, "DeltaTable | None"] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, lake: Lake) -> Self:
        """Return a snapshot of a lake; nothing is opened yet."""
        return cls(root=lake.root, storage_options=lake.storage_options)

    def replace(self, schema: TableSchema, partition: Mapping[str, str], rows: pa.Table) -> int:
        """Refuse to write: what is written would not be seen.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"a snapshot of the lake is for reading; write the {rows.num_rows} rows of {schema.name} with {dict(partition)} by "
            "the lake itself"
        )

    def table(self, schema: TableSchema) -> "DeltaTable | None":
        """Return the table as it was when first asked for, or None where there was none.

        Raises:
            TableError: as `Lake.table`.
        """
        if schema.name not in self._opened:
            self._opened[schema.name] = super().table(schema)
        return self._opened[schema.name]
