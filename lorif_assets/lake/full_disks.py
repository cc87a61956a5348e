"""Writing where there may be no room left: one error for what the libraries say of it in words of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from lorif_assets.errors import CannotWriteError, unwritable


@contextmanager
def writing_to(place: str) -> Iterator[None]:
    """Say in one way that a place takes nothing more.

    Raises:
        CannotWriteError: the disk is full, a quota is used up, or the file system was made read-only.
    """
    try:
        yield
    except Exception as error:
        reason = unwritable(error)
        if reason is None or isinstance(error, CannotWriteError):
            raise
        raise CannotWriteError(
            f"nothing more can be written to {place}: {reason}. Make room there, then start this again: what was finished is "
            "stored, and is not computed again"
        ) from error
