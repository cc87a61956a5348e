"""Shards are read ahead and written behind, and no failure takes more than its own shard with it."""

import threading

import pytest

from lorif_assets.compute.shard_pipeline import overlapped
from lorif_assets.errors import LorifError, TableError

SHARDS = ("a", "b", "c")
PATIENCE = 10


def outcomes(**steps):
    """By shard what came of it: what was written, or the error."""
    steps = {"read": str.upper, "compute": lambda read: read * 2, "write": lambda computed: computed + "!"} | steps
    return {
        shard: written.exception() or written.result()
        for shard, written in overlapped(SHARDS, steps["read"], steps["compute"], steps["write"])
    }


def test_each_shard_is_read_computed_and_written_in_order():
    assert list(outcomes().items()) == [("a", "AA!"), ("b", "BB!"), ("c", "CC!")]
    assert list(overlapped((), str, str, str)) == []


def test_the_next_shard_is_read_while_one_is_computed():
    reading = {shard: threading.Event() for shard in SHARDS}

    def read(shard):
        reading[shard].set()
        return shard

    def compute(shard):
        following = SHARDS[SHARDS.index(shard) + 1 :][:1]
        assert all(reading[name].wait(PATIENCE) for name in following)
        assert not any(reading[name].is_set() for name in SHARDS[SHARDS.index(shard) + 2 :])
        return shard

    assert outcomes(read=read, compute=compute) == {"a": "a!", "b": "b!", "c": "c!"}


def test_a_shard_is_written_while_the_next_is_computed():
    computing = {shard: threading.Event() for shard in SHARDS}

    def compute(shard):
        computing[shard].set()
        return shard

    def write(shard):
        assert all(computing[name].wait(PATIENCE) for name in SHARDS[SHARDS.index(shard) + 1 :][:1])
        return shard

    assert outcomes(read=str, compute=compute, write=write) == {"a": "a", "b": "b", "c": "c"}


@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_a_shard_that_fails_does_not_keep_the_others(step):
    def fails_for_b(value):
        if value.lower().startswith("b"):
            raise TableError("no room")
        return value

    found = outcomes(**{step: fails_for_b})
    assert isinstance(found.pop("b"), LorifError)
    assert found.keys() == {"a", "c"}
    assert all(isinstance(written, str) for written in found.values())


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, TypeError])
def test_an_interrupt_comes_after_the_shard_that_is_being_written(interrupt):
    def stops_at_b(shard):
        if shard == "b":
            raise interrupt
        return shard

    found = overlapped(SHARDS, str, stops_at_b, str)
    shard, written = next(found)
    assert (shard, written.result()) == ("a", "a")
    with pytest.raises(interrupt):
        next(found)
