"""Refusals of files that hold, or claim to hold, more than the settings allow."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lorif_assets.config.limits import GIB, MIB, ReadLimits
from lorif_assets.errors import SourceError


def beyond(path: Path | str, found: str, setting: str, limits: ReadLimits) -> SourceError:
    """Return the error of a file that is beyond a limit; `found` says what of it, as a predicate."""
    return SourceError(
        f"{path} {found}, and `limits.{setting}` = {getattr(limits, setting)} allows no more. Where the file is what it should "
        "be, raise that limit in the settings of the source, or of [queries]."
    )


def too_long(limits: ReadLimits) -> str:
    """Return why a row is set aside that is longer than a row may be."""
    return f"longer than the {limits.row_mib} MiB that `limits.row_mib` allows"


def refuse_many(path: Path | str, rows: int, columns: int, limits: ReadLimits) -> None:
    """Refuse a file of more rows or columns than there may be.

    Raises:
        SourceError: it is one.
    """
    if rows > limits.rows:
        raise beyond(path, f"has, or claims to have, {rows:,} rows", "rows", limits)
    if columns > limits.columns:
        raise beyond(path, f"has {columns:,} columns", "columns", limits)


def refuse_large(path: Path | str, size: int, limits: ReadLimits) -> None:
    """Refuse rows of one shard that take more bytes than there may be in memory together.

    Raises:
        SourceError: they do.
    """
    if size > limits.shard_mib * MIB:
        raise beyond(
            path, "has a shard whose rows are larger (fewer `rows_per_shard` make it smaller)", "shard_mib", limits
        )


def largest_content(stored: int, limits: ReadLimits) -> tuple[int, str]:
    """Return how many bytes a compressed file of a size may hold, and the setting that says so."""
    by_size, whole = max(GIB, limits.expansion * stored), limits.expanded_gib * GIB
    return (by_size, "expansion") if by_size < whole else (whole, "expanded_gib")


def bounded_lines(file: BinaryIO, most: int) -> Iterator[tuple[bytes, int]]:
    """Yield each line and its length; of one that is longer than `most` bytes, no more than these and one."""
    while line := file.readline(most + 1):
        length = len(line)
        rest = line
        while length > most and rest and not rest.endswith(b"\n"):
            rest = file.readline(min(most, MIB))
            length += len(rest)
        yield line, length
