"""Errors that a user can act on: each message names the thing, what was expected, what was found and what to do."""

import errno
import re
from collections.abc import Collection, Iterator

_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_SHOWN_OF_STORE = 300
_STATUS_OF_STORE = re.compile(r"non-2xx status code (\d{3}(?: [A-Z][a-z]+)*)")
_CODE_OF_STORE = re.compile("<Code>([^<]+)")
_MESSAGE_OF_STORE = re.compile("<Message>([^<]+)")
_UNWRITABLE = {
    errno.ENOSPC: ("the disk is full", "no space left on device", "database or disk is full"),
    errno.EDQUOT: ("the quota of disk space is used up", "disk quota exceeded"),
    errno.EFBIG: ("a file would be larger than one may be here", "file too large"),
    errno.EROFS: ("the file system is read-only", "read-only file system", "readonly database"),
}
"""By the system's number: what it means, and the words of libraries that keep no number."""


class LorifError(Exception):
    """Base of every error that a wrong setting, source, checkpoint or table raises."""


class SettingsError(LorifError):
    """A setting is missing, out of range or contradicts another."""


class SourceError(LorifError):
    """Training data or a query file is missing, empty, malformed or lacks a column."""


class TooManyRejectedError(SourceError):
    """More rows were set aside than the settings allow: a person decides, and nothing goes on until then."""


class CheckpointError(LorifError):
    """A checkpoint cannot be used: missing files, unsafe format, no tokenizer, a vocabulary that does not fit."""


class HubError(LorifError):
    """A repository of the hub cannot be used: unknown, gated, out of reach, or not in the cache."""


class StoreError(LorifError):
    """An object store cannot be reached, refuses, or has no such file."""

    @classmethod
    def of(cls, what: str, error: OSError) -> "StoreError":
        """Return what cannot be done, with the store's own words, which name no credentials, on one line.

        What the store answers itself (code and message) stands before what the library says of the request, which may be long.
        """
        words = " ".join(_COLOURS.sub("", str(error)).replace("↳", " ").split())
        answer = ": ".join(filter(None, _answered(words)))
        return cls(f"{what}: {answer or words[:_SHOWN_OF_STORE]}")


def _answered(words: str) -> Iterator[str]:
    """Yield status, code and message of a store's answer, as far as they are in a library's words."""
    for part in (_STATUS_OF_STORE, _CODE_OF_STORE, _MESSAGE_OF_STORE):
        if found := part.search(words):
            yield found[1].strip()[:_SHOWN_OF_STORE]


class MismatchError(LorifError):
    """Two stored results disagree about what they were computed from (recipe, weights, tokenizer, projection, data)."""


class TableError(LorifError):
    """A table of the lake is absent, has an unexpected schema or was changed by a writer that is not this project."""


class NotStoredError(LorifError):
    """What is asked for by name is not in the lake; the message says what is."""


class RefusedError(LorifError):
    """What is asked for is not allowed here; the message says who can allow it, and how."""


class DamagedLakeError(TableError):
    """A file of the lake is not what was written, cannot be read, or is gone."""


class CannotWriteError(OSError):
    """Nothing can be stored any more: the disk is full, say. No `LorifError`: whatever a run would still do is in vain."""


def unwritable(error: BaseException | None) -> str | None:
    """Return why nothing can be stored any more, where that is what an error or what caused it says; else None."""
    while error:
        words = str(error).lower()
        for number, (meaning, *signs) in _UNWRITABLE.items():
            if getattr(error, "errno", None) == number or any(sign in words for sign in signs):
                return meaning
        error = error.__cause__ or error.__context__
    return None


class RetrainingError(LorifError):
    """The training recipe of the settings failed, or left no usable checkpoint."""


class UnsoundQueryError(LorifError):
    """Losses or gradients of queries are not finite; `query_ids` are theirs."""

    def __init__(self, message: str, query_ids: Collection[str]) -> None:
        super().__init__(message)
        self.query_ids = frozenset(query_ids)

    def __reduce__(self) -> "tuple[type[UnsoundQueryError], tuple[str, Collection[str]]]":
        return type(self), (str(self), self.query_ids)
