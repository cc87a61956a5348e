"""The next block is made while one is used, no more than one ahead, and failures come in their place."""

import threading

import pytest

from lorif_assets.errors import TableError
from lorif_assets.lake.read_ahead import read_ahead

PATIENCE = 10


def test_blocks_come_in_order():
    assert list(read_ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert list(read_ahead(iter(()))) == []
    assert list(read_ahead(iter((None, False)))) == [None, False]


def test_one_block_is_made_while_another_is_used_and_no_more():
    made = [threading.Event() for _ in range(4)]

    def blocks():
        for index, event in enumerate(made):
            event.set()
            yield index

    for index in read_ahead(blocks()):
        assert all(event.wait(PATIENCE) for event in made[: index + 2])
        assert not any(event.is_set() for event in made[index + 2 :])


def test_an_error_is_raised_after_the_blocks_before_it():
    def blocks():
        yield 1
        raise TableError("the file is gone")

    found = read_ahead(blocks())
    assert next(found) == 1
    with pytest.raises(TableError, match="the file is gone"):
        next(found)


def test_a_scan_that_is_left_early_leaves_no_thread():
    found = read_ahead(iter(range(5)))
    next(found)
    found.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
