"""What a file is, told from how it begins, and what to do with it where its name or the settings say otherwise."""

import json
from pathlib import Path

from lorif_assets.data.formats.compression import beginning
from lorif_assets.errors import SourceError
from lorif_assets.lake.special_files import LFS_BEGINNING, LFS_POINTER

_BEGINNING = 1 << 16
_PARQUET = b"PAR1"
_STREAMS = (".bin", ".npy")
MEGATRON = b"MMIDIDX\0\0"
"""How an index of Megatron's begins."""
_BINARY = {
    _PARQUET: 'is a Parquet file: let its name end in .parquet, or set format = "parquet"',
    b"ARROW1": "is an Arrow file: save its rows as Parquet",
    b"PK\x03\x04": "is a zip archive or an Excel workbook: unpack it, or save the sheet as CSV",
    b"BZh": "is compressed by bzip2: decompress it, or compress it by gzip or Zstandard",
    b"\xfd7zXZ": "is compressed by xz: decompress it, or compress it by gzip or Zstandard",
    b"SQLite format 3": "is an SQLite database: save the table's rows as Parquet or JSON Lines",
    LFS_BEGINNING: f"is {LFS_POINTER}",
    b"\xff\xfe\0\0": "is UTF-32: save it as UTF-8",
    b"\0\0\xfe\xff": "is UTF-32: save it as UTF-8",
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
}


def advice(path: Path) -> str:
    """Return what a file is, as far as its beginning says, and how it can be read.

    Raises:
        SourceError: it cannot be read.
    """
    first = beginning(path, _BEGINNING)
    if not first:
        return "is empty"
    # Small numbers of two bytes look like UTF-16.
    binary = _marked(first) or _stream(path, first) or _wide(first)
    return _of_an_index(path) or binary or _json(first) or _text(first)


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does.

    Raises:
        SourceError: it cannot be read.
    """
    return beginning(path, len(_PARQUET)) == _PARQUET


def refuse_binary(path: Path, first: bytes, expected: str) -> None:
    """Refuse a file of text whose first bytes are those of something else.

    Raises:
        SourceError: they are.
    """
    binary = _marked(first) or _wide(first)
    if binary:
        raise SourceError(f"{path} was to be read as {expected}, but it {binary}.")


def _of_an_index(path: Path) -> str:
    index = path.with_suffix(".idx")
    is_one = path.suffix == ".bin" and index.is_file() and beginning(index, len(MEGATRON)) == MEGATRON
    return f"holds the tokens of the documents that {index.name} names: give the path of that" if is_one else ""


def _marked(first: bytes) -> str:
    return next((kind for magic, kind in _BINARY.items() if first.startswith(magic)), "")


def _wide(first: bytes) -> str:
    # Text of two bytes a character, without a mark: every other byte is NUL.
    is_wide = [byte == 0 for byte in first[:4]] in ([False, True, False, True], [True, False, True, False])
    return "is UTF-16, without a mark that says so: save it as UTF-8" if is_wide else ""


def _json(first: bytes) -> str:
    if first.startswith(b"["):
        return 'is a JSON array by its beginning: let its name end in .json, or set format = "json"'
    if not first.startswith(b"{"):
        return ""
    if _is_object(first.partition(b"\n")[0]):
        return 'is JSON Lines by its beginning: let its name end in .jsonl, or set format = "jsonl"'
    return "is one JSON object by its beginning: save its rows as a JSON array (.json), or one object a line (.jsonl)"


def _stream(path: Path, first: bytes) -> str:
    if path.suffix.lower() not in _STREAMS or b"\0" not in first:
        return ""
    index = path.with_suffix(".idx")
    of_megatron = path.suffix == ".bin" and not index.exists()
    more = f"; where Megatron wrote it, {index.name} was written with it: give its path" if of_megatron else ""
    return (
        'may be a stream of token ids: where it is, set format = "tokens" and the id of the token that ends a document, '
        f"`document_end`{more}; where not, save its rows as Parquet or JSON Lines"
    )


def _text(first: bytes) -> str:
    if b"\0" in first:
        return "is none of them by its beginning: save its rows as Parquet or JSON Lines"
    return (
        "is text by its beginning: where it is a table with values between commas, let its name end in .csv or set "
        'format = "csv"; where it is a passage, in .txt or format = "txt"'
    )


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return len(line) > _BEGINNING // 2  # cut off
