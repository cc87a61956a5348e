"""Texts that a tokenizer gives up on: one of them stops a whole batch, and is set aside by itself.

A tokenizer's regular expressions are its author's. On some texts one takes exponentially many steps; its library counts
them, and ends in a panic of Rust's, which is no `Exception` of Python's.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from lorif_assets.data.rows.unusable import UnusableRowError

_Row = TypeVar("_Row")
_Encoded = TypeVar("_Encoded")


def encoded_apart(
    encode: Callable[[Sequence[_Row]], Sequence[_Encoded]], rows: Sequence[_Row]
) -> list[_Encoded | UnusableRowError]:
    """Return what a function gives for some rows at once; for a row that makes the tokenizer panic, the reason.

    Where the tokenizer panics, the rows are halved until those that it panics on are alone.
    """
    try:
        return list(encode(rows))
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        if len(rows) == 1:
            return [UnusableRowError(f"the tokenizer gives up on the text: {error}")]
    half = len(rows) // 2
    return [*encoded_apart(encode, rows[:half]), *encoded_apart(encode, rows[half:])]
