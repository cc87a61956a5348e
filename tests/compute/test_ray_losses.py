"""How the engine `ray` counts workers that are lost before they have started."""

import logging
from collections import Counter, deque

import pytest

from lorif_assets.compute.ray_cluster import RayResources
from lorif_assets.compute.ray_engine import RayWorkers, _Loss, _Member
from lorif_assets.errors import LorifError
from tests.compute.ray_work import Opened

LOSS = _Loss("The node died")


@pytest.fixture
def workers(tmp_path, monkeypatch: pytest.MonkeyPatch) -> RayWorkers:
    """Up to eight workers without a cluster, of whom three starts in a row may fail."""
    monkeypatch.setattr(RayWorkers, "_dismiss", lambda self, member: self._members.remove(member))
    return RayWorkers(Opened(tmp_path), logging.getLogger("test.ray"), RayResources(8, 1, 0, None, ()), attempts=3)


def start(workers: RayWorkers, count: int) -> list[_Member]:
    begun = [_Member(workers._started + number, None, None) for number in range(1, count + 1)]
    workers._started += count
    workers._members += begun
    return begun


def lose(workers: RayWorkers, members: list[_Member]) -> None:
    for member in members:
        assert workers._replaced(member, LOSS, ["a"], deque(), Counter()) == []


def test_a_node_that_is_lost_while_all_its_workers_start_is_one_failure(workers: RayWorkers) -> None:
    lose(workers, start(workers, 8))
    lose(workers, start(workers, 8))
    assert not workers._members


def test_starts_that_fail_again_and_again_end_the_run(workers: RayWorkers) -> None:
    lose(workers, start(workers, 8))
    lose(workers, start(workers, 8))
    with pytest.raises(LorifError, match=r"3 times in a row.*The node died"):
        lose(workers, start(workers, 8))


def test_workers_that_start_one_by_one_and_fail_end_the_run(workers: RayWorkers) -> None:
    lose(workers, start(workers, 1))
    lose(workers, start(workers, 1))
    with pytest.raises(LorifError, match="3 times in a row"):
        lose(workers, start(workers, 1))
