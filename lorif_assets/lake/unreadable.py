"""Errors of Rust libraries as errors of Python."""

from collections.abc import Iterator
from contextlib import contextmanager


class UnreadableError(Exception):
    """A library written in Rust gave up on what it was given to read."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise an error in place of a panic, which is none for Python: nothing that expects errors would catch it.

    Raises:
        UnreadableError: as it says.
    """
    try:
        yield
    except BaseException as error:
        # Each library has a class of its own, which none of them names.
        if type(error).__name__ != "PanicException":
            raise
        raise UnreadableError(str(error)) from error
