"""How sources are read, by format: the module that is named after a format holds its `READER`.

A new format is a member of `SourceFormat` and a module here.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from lorif_assets.config.sources import SourceFormat
from lorif_assets.data.formats.reader import Reader


@cache
def readers() -> Mapping[SourceFormat, Reader]:
    """Return the reader of every format, in the order in which formats are declared."""
    formats = (kind for kind in SourceFormat if kind is not SourceFormat.AUTO)
    return {kind: import_module(f"{__name__}.{kind}").READER for kind in formats}


def format_of_suffix(path: Path) -> SourceFormat | None:
    """Return the format that a file's name says, or None; of a file that is here, its beginning has to agree."""
    return next((kind for kind, reader in readers().items() if not reader.is_named and is_of(path, kind)), None)


def is_of(path: Path, kind: SourceFormat) -> bool:
    """Whether a file's name says that it is of a format, and its beginning does not say otherwise."""
    reader = readers()[kind]
    return bool(reader.suffix_of(path)) and _begins_with(path, reader.magic)


def _begins_with(path: Path, magic: bytes) -> bool:
    if not magic or not path.is_file():
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return True


def formats_of_data(files: Iterable[Path]) -> dict[Path, SourceFormat]:
    """Return the formats of those files that are data, by their names, whose beginnings do not say otherwise.

    Files that describe others are none, nor is what trainers made of rows where there are files of rows too.
    """
    found = {file: kind for file in files if (kind := format_of_suffix(file))}
    kinds = [readers()[kind] for kind in {*found.values()}]
    data = {file: kind for file, kind in found.items() if not any(one.is_description(file.name) for one in kinds)}
    rows = {file: kind for file, kind in data.items() if not readers()[kind].is_made_of_rows}
    return rows or data


def known_suffixes() -> str:
    """Return the suffixes of all formats that files are told by, for messages."""
    return ", ".join(suffix for reader in readers().values() if not reader.is_named for suffix in reader.suffixes)
