"""The engine `local`: this process on leased devices, with a state that is opened once and dropped at the end."""

import gc
import logging
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lorif_assets.compute import shard_work
from lorif_assets.compute.local import LocalEngine
from lorif_assets.compute.shard_work import Step, Worker, result, results
from lorif_assets.errors import TableError, UnsoundQueryError
from lorif_assets.models.devices import Devices
from tests.compute.ray_work import Doubling, Opened, State, pid

LOG = logging.getLogger("test")
ENGINE = LocalEngine(Devices(names=["cpu"]))


def kept(value: Any) -> Any:
    return value


def test_shards_are_committed_in_their_order_by_a_state_that_is_opened_once(tmp_path: Path) -> None:
    committed: list[str] = []

    def commit(stored: dict[str, Any]) -> float:
        committed.append(stored["name"])
        return float(stored["numbers"])

    with ENGINE.workers(Opened(tmp_path), LOG) as workers:
        found = {shard: outcome.result() for shard, outcome in workers.map_shards(Doubling(), ["a:1", "b:2"], commit)}
        found |= {shard: outcome.result() for shard, outcome in workers.map_shards(Doubling(), ["c:3"], commit)}
    assert found == {"a:1": 2.0, "b:2": 4.0, "c:3": 6.0}
    assert committed == ["a", "b", "c"]
    assert len(list(tmp_path.glob("opened-*"))) == 1


def test_a_shard_that_fails_has_its_error_and_keeps_no_other(tmp_path: Path) -> None:
    with ENGINE.workers(Opened(tmp_path), LOG) as workers:
        found = {s: o.exception() for s, o in workers.map_shards(Doubling(), ["absent:1", "unsound:2", "b:3"], kept)}
    assert isinstance(found["absent:1"], TableError)
    assert isinstance(found["unsound:2"], UnsoundQueryError)
    assert found["b:3"] is None


def test_the_state_is_gone_before_another_process_gets_the_devices() -> None:
    class Model:
        pass

    def opening(worker: Worker) -> Model:
        return Model()

    def seen(state: Model, shard: str) -> "weakref.ref[Model]":
        return weakref.ref(state)

    with ENGINE.workers(opening, LOG) as workers:
        (model,) = results(workers, Step(seen), ["a"])
        assert model() is workers.state
    gc.collect()
    assert model() is None


class OutOfOrder:
    """Workers that finish the last shard first."""

    parts = 3

    def map_shards(self, work: Any, shards: Any, commit: Any) -> Iterator[tuple[Any, "Future[Any]"]]:
        for shard in reversed(shards):
            outcome: Future[Any] = Future()
            outcome.set_result(commit(work.compute(None, shard)))
            yield shard, outcome


def test_results_are_in_the_order_of_the_shards_whoever_is_first() -> None:
    assert list(results(OutOfOrder(), Step(lambda state, shard: 2 * shard), [1, 2, 3])) == [2, 4, 6]
    assert list(results(OutOfOrder(), Step(lambda state, shard: 2 * shard), [])) == []


def test_a_call_of_one_worker_raises_what_it_raises(tmp_path: Path) -> None:
    def refuses(state: State) -> None:
        raise TableError("gone")

    with ENGINE.workers(Opened(tmp_path), LOG) as workers:
        assert result(workers, pid) > 0
        with pytest.raises(TableError, match="gone"):
            result(workers, refuses)


def test_the_name_of_a_call_holds_none_of_its_arguments() -> None:
    """They may hold the credentials of an object store, and the name stands in logs and errors."""
    call = shard_work._Call(partial(kept, {"AWS_SECRET_ACCESS_KEY": "secret"}))
    assert str(call) == "kept"


def test_what_is_found_says_how_a_step_could_have_all_of_several_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENGINE.found() == "local, on cpu"
    monkeypatch.setattr(Devices, "available", lambda self: ["cuda:0", "cuda:1", "cuda:2", "cuda:3"])
    found = LocalEngine(Devices(per_checkpoint=2)).found()
    assert found.startswith("local, on cuda:0 + cuda:1 or cuda:2 + cuda:3, one for each step; with ")
    assert found.endswith('`compute.engine = "ray"` and `compute.address = "local"` a step computes on all 2')
