"""Folders that are tables of a lakehouse: their files are not read one by one, as they hold rows that were since removed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class TableFolder:
    """A folder that is a table, what kind of table it is, and what to do in place of reading its files."""

    folder: str
    kind: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.folder} is {self.kind}. {self.remedy}: its files hold rows that it has since removed."


_SAVE_ANEW = "Save the rows that it has now as Parquet, and read those"
# By what lies in a table's folder.
_TABLES: Mapping[str, tuple[str, str]] = {
    "_delta_log/*": ("a Delta table", 'Make it a source of its own with format = "delta"'),
    "metadata/*.metadata.json": ("an Iceberg table", _SAVE_ANEW),
    ".hoodie/*": ("a Hudi table", _SAVE_ANEW),
}


def table_around(files: Iterable[Path]) -> TableFolder | None:
    """Return a table that files belong to, if any: they may lie in a folder within it, one of its partitions say."""
    for folder in sorted({folder for path in files for folder in path.parents}):
        for mark, (kind, remedy) in _TABLES.items():
            if next(folder.glob(mark), None):
                return TableFolder(str(folder), kind, remedy)
    return None


def table_among(place: str, files: Iterable[str], listed: Iterable[str]) -> TableFolder | None:
    """Return the same of files in a store or on the hub.

    Args:
        place: where they are.
        files: that are to be read, by their names below the place.
        listed: all that lies there.
    """
    marks = [(path, what) for path in map(PurePosixPath, listed) for mark, what in _TABLES.items() if path.match(mark)]
    tables = {path.parents[1]: what for path, what in marks}
    around = (folder for file in files for folder in PurePosixPath(file).parents if folder in tables)
    found = next(around, None)
    return None if found is None else TableFolder(f"{place}/{found}".removesuffix("/."), *tables[found])
