"""Files that rows point to: the checksum is in their name, in that of their folder, or, of a page, in a column of its row."""

import json
from typing import Final

from lorif_assets.lake.checksums import checksum, named_checksum
from lorif_assets.lake.seals import State
from lorif_assets.lake.stored_files import StoredFiles

_LINE: Final = "  "
CHECKSUM_LIST: Final = "checksums.json"
"""The file of a folder that has the checksums of its files by name, without suffix; the folder's name has its own."""


def look_at_named_file(files: StoredFiles, path: str) -> State:
    """Compare a file with the checksum of its name, or of the list in its folder.

    Raises:
        FileNotFoundError: it is gone, or the list.
    """
    folder, _, name = path.rpartition("/")
    expected, of_list = named_checksum(name), named_checksum(folder)
    if expected is None and of_list is not None:
        listed = files.read(f"{folder}/{CHECKSUM_LIST}")
        if checksum(listed) != of_list:
            return State.DAMAGED
        # The list itself is then sound.
        expected = of_list if name == CHECKSUM_LIST else json.loads(listed).get(name.rpartition(".")[0])
    if expected is None:
        return State.UNCHECKED
    return State.SOUND if checksum(files.view(path)) == expected else State.DAMAGED


def page_line(path: str, content: bytes) -> str:
    """Return what a row says of a page: its checksum, and its path relative to the lake's root."""
    return f"{checksum(content)}{_LINE}{path}"


def look_at_page(files: StoredFiles, line: str) -> State:
    """Compare a page with what its row says.

    Raises:
        FileNotFoundError: it is gone.
    """
    written, _, path = line.partition(_LINE)
    return State.SOUND if checksum(files.view(path)) == written else State.DAMAGED


def page_path(line: str) -> str:
    """Return the path in what a row says of a page."""
    return line.partition(_LINE)[2]
