"""Shards one after the other: while one is computed, the next is read and the previous one is written."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lorif_assets.errors import LorifError

_Shard = TypeVar("_Shard")
_Read = TypeVar("_Read")
_Computed = TypeVar("_Computed")
_Written = TypeVar("_Written")


def overlapped(
    shards: Sequence[_Shard],
    read: Callable[[_Shard], _Read],
    compute: Callable[[_Read], _Computed],
    write: Callable[[_Computed], _Written],
) -> Iterator[tuple[_Shard, "Future[_Written]"]]:
    """Yield each shard with what writing it returned, or the `LorifError` or `RuntimeError` that stopped it.

    At most three shards are in memory. If a computation is interrupted or ends in any other error, the shard before it is
    still written and yielded first.

    Args:
        shards: their names, or what else they are known by.
        read: takes one of them and returns the input of `compute`; runs in a thread of its own.
        compute: turns that into what is stored; runs in the caller's thread.
        write: stores it; runs in a thread of its own.
    """
    last_write: tuple[_Shard, Future[_Written]] | None = None
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        for shard, reading in _one_ahead(reader, read, shards):
            try:
                outcome = _writing(writer, write, compute(reading.result()), last_write)
            except (LorifError, RuntimeError) as error:
                outcome = Future()
                outcome.set_exception(error)
            except BaseException:
                if last_write:
                    yield last_write
                raise
            if last_write:
                yield last_write
            last_write = shard, outcome
        if last_write:
            yield last_write


def _one_ahead(
    reader: ThreadPoolExecutor, read: Callable[[_Shard], _Read], shards: Sequence[_Shard]
) -> Iterator[tuple[_Shard, "Future[_Read]"]]:
    """Yield each shard's reading once the next one has begun."""
    ahead: deque[tuple[_Shard, Future[_Read]]] = deque()
    for shard in shards:
        ahead.append((shard, reader.submit(read, shard)))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


def _writing(
    writer: ThreadPoolExecutor,
    write: Callable[[_Computed], _Written],
    computed: _Computed,
    last_write: "tuple[_Shard, Future[_Written]] | None",
) -> "Future[_Written]":
    """Start a write as soon as the last one is done: a slow store delays the computation, but takes no more memory."""
    if last_write:
        last_write[1].exception()
    return writer.submit(write, computed)
