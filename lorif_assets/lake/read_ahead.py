"""Reading ahead: while one block is computed with, the next is read and decoded."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_Block = TypeVar("_Block")


def read_ahead(blocks: Iterator[_Block]) -> Iterator[_Block]:
    """Yield the blocks in their order, the next one being made in a thread of its own: two at most are in memory.

    What making a block raises is raised in its place.
    """

    def following() -> list[_Block]:
        return list(islice(blocks, 1))

    with ThreadPoolExecutor(1, "read-ahead") as reader:
        under_way = reader.submit(following)
        while block := under_way.result():
            under_way = reader.submit(following)
            yield block.pop()
