"""A user's Delta table as a source: its rows dealt to buckets by a stable hash of their id.

Every bucket is a shard, so that editing, adding or deleting a row touches one shard, however the table's files are
rewritten. Reading a bucket scans the table once and keeps the bucket's rows only.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Self

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

from lorif_assets.config.secrets import MaskedError, kept_secret, secrets_of
from lorif_assets.data.rows.arrow_values import rows_of, values_of
from lorif_assets.data.rows.row_ids import text_of_id
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.errors import SourceError
from lorif_assets.lake.delta_paths import refused_character
from lorif_assets.lake.unreadable import UnreadableError, panics_as_errors

ERRORS = (DeltaError, pa.ArrowException, OSError, UnreadableError)
"""What delta-rs raises where a table, a file of it or its object store cannot be read."""


@dataclass(frozen=True)
class BucketedTable:
    """A Delta table, and how its rows are dealt to buckets.

    A version of it is `<number>-<table id>`: a table that was created again starts at number 0.
    """

    uri: str
    id_column: str
    buckets: int
    storage_options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, uri: str, id_column: str, buckets: int, storage_options: Mapping[str, str]) -> Self:
        """Return the table with its storage options sorted, so that equal options make equal tables.

        Raises:
            SourceError: the path has a character that no Delta table's can have.
        """
        character = refused_character(uri)
        if character:
            raise SourceError(
                f"the Delta table {uri!r} cannot be read: delta-rs has no path with the character {character!r}; move it"
            )
        return cls(uri, id_column, buckets, tuple(sorted(storage_options.items())))

    def version(self) -> str:
        """Return the newest version.

        Raises:
            SourceError: there is no readable Delta table.
        """
        with self._readable():
            table = DeltaTable(self.uri, storage_options=self._options)
            return f"{table.version()}-{table.metadata().id}"

    def columns(self, version: str) -> tuple[str, ...]:
        """Return the names of the columns at a version."""
        with self._readable():
            return tuple(field.name for field in self.at(version).schema().fields)

    def schema(self, version: str) -> pa.Schema:
        """Return names and types of the columns at a version."""
        with self._readable():
            return pa.schema(self.at(version).schema().to_arrow())

    def rows(self, version: str, bucket: int) -> list[dict[str, Any]]:
        """Return the rows of one bucket, in the order of their ids, which does not depend on the table's files."""
        rows: list[dict[str, Any]] = []
        for batch in self.scan(version, None):
            for k, row_id in enumerate(values_of(batch.column(self.id_column))):
                if self.bucket_of(row_id) == bucket:
                    rows += rows_of(batch.slice(k, 1))  # `take` does not know the string views that scans give
        # Rows that share an id are ordered by their values: which of them comes first must not depend on the files.
        return sorted(rows, key=lambda row: (self._text_of(row[self.id_column]), repr(row)))

    def bucket_of(self, row_id: object) -> int:
        """Return the bucket of an id, the same in every process and on every machine."""
        digest = blake2b(self._text_of(row_id).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.buckets

    def _text_of(self, row_id: object) -> str:
        try:
            return text_of_id(row_id, self.id_column)
        except UnusableRowError:  # its row is set aside wherever it is
            return str(row_id)

    def scan(self, version: str, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield the rows at a version."""
        with self._readable():
            yield from pa.RecordBatchReader.from_stream(self.at(version).scan(columns=columns))

    def at(self, version: str) -> DeltaTable:
        """Return the table at a version.

        Raises:
            SourceError: the table was created again in the meantime.
        """
        number, _, table_id = version.partition("-")
        table = DeltaTable(self.uri, version=int(number), storage_options=self._options)
        if str(table.metadata().id) != table_id:
            raise SourceError(f"{self.uri} was created again after its shards were listed. List them again.")
        return table

    def files(self) -> pafs.FileSystem:
        """Return the table's files, its log among them."""
        return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self._options))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            with kept_secret(secrets_of(dict(self.storage_options))), panics_as_errors():
                yield
        except (*ERRORS, MaskedError) as error:
            raise SourceError(
                f"{self.uri} cannot be read as a Delta table: {error}. Check the path and, for an object store, the "
                "credentials."
            ) from error

    @property
    def _options(self) -> dict[str, str] | None:
        return dict(self.storage_options) or None
