"""Lists of ids, one a line."""

from pathlib import Path

from lorif_assets.errors import SourceError


def id_list(content: bytes, name: str) -> tuple[str, ...]:
    """Return the ids of a list, one a line of UTF-8; empty lines are left out.

    Args:
        content: the list.
        name: what it is called in messages.

    Raises:
        SourceError: it is no text, or has no id.
    """
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{name} is no text in UTF-8: give one id, or shard/id, a line") from error
    ids = tuple(line for line in (line.removesuffix("\r") for line in lines) if line.strip())
    if not ids:
        raise SourceError(f"{name} has no id: give one id, or shard/id, a line")
    return ids


def ids_of_file(path: Path) -> tuple[str, ...]:
    """Return the ids of a file, as `id_list`.

    Raises:
        SourceError: it cannot be read, or as `id_list`.
    """
    try:
        return id_list(path.read_bytes(), str(path))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
