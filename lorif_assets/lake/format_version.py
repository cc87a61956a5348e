"""The version of a lake's format, in the file `format.json` at its root.

Format 1, without the file, has no checksums. It is read as it is, and becomes format 2 with the first write: what is written
from then on has checksums. A lake of a newer format is refused.
"""

import json
from typing import Final

from lorif_assets.errors import DamagedLakeError, TableError
from lorif_assets.lake.checksums import checksum
from lorif_assets.lake.stored_files import StoredFiles

FORMAT: Final = 2
"""What this version of the project writes."""
FILE: Final = "format.json"


def format_content(version: int) -> bytes:
    """Return the content of the file."""
    return json.dumps({"format": version, "checksum": _checksum(version)}).encode()


def stored_format(files: StoredFiles) -> int:
    """Return a lake's format; 1 where the file is not there.

    Raises:
        TableError: it is newer than this version of the project.
        DamagedLakeError: the file is not what was written.
        StoreError: the object store cannot be reached, or refuses.
    """
    try:
        content = files.read(FILE)
    except (FileNotFoundError, NotADirectoryError):
        return 1
    for version in range(2, FORMAT + 1):
        if content == format_content(version):
            return version
    newer = _newer(content)
    if newer is None:
        raise DamagedLakeError(
            f"the lake {files.root} is damaged: the file {FILE} is not what was written; run `lorif verify`, which puts it back"
        )
    raise TableError(
        f"the lake {files.root} has format {newer}, and this version of lorif-assets reads formats up to {FORMAT}: a newer "
        "version wrote it. Install that version (`pip install --upgrade lorif-assets`), or set `lake.root` to another directory"
    )


def mark_format(files: StoredFiles) -> None:
    """Write the format of this version into a lake, unless it is there."""
    if stored_format(files) != FORMAT:
        files.write(FILE, format_content(FORMAT))


def put_back_format(files: StoredFiles) -> bool:
    """Write the file again where it is not what was written, and return whether that was so.

    Raises:
        TableError: the format is newer than this version of the project.
    """
    try:
        stored_format(files)
    except DamagedLakeError:
        files.write(FILE, format_content(FORMAT))
        return True
    return False


def _newer(content: bytes) -> int | None:
    """Return the newer format that a file states, whatever else a newer version says in it; None if it states none."""
    try:
        stated = json.loads(content)
        version, written = stated["format"], stated.get("checksum")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    is_newer = type(version) is int and version > FORMAT
    # A number that a flipped bit made is not that of the checksum beside it, which belongs to a format that is known.
    return version if is_newer and written not in map(_checksum, range(2, FORMAT + 1)) else None


def _checksum(version: int) -> str:
    return checksum(str(version).encode())
