"""Reading ahead: while one block is used, the next is read and decoded."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Block = TypeVar("_Block")


def read_ahead(blocks: Iterator[_Block]) -> Iterator[_Block]:
    """Yield the blocks in their order while a thread makes the next one: at most two are in memory.

    An error in making a block is raised in its place.
    """

    def next_block() -> list[_Block]:
        return list(islice(blocks, 1))

    with ThreadPoolExecutor(1, "read-ahead") as reader:
        pending = reader.submit(next_block)
        while block := pending.result():
            pending = reader.submit(next_block)
            yield block.pop()
