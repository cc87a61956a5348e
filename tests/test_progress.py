"""Progress of long work: how fast it goes, and a log line now and then."""

import logging
from threading import Thread

import pytest

from lorif_assets.progress import LINES, Progress, count_partition, partition_progress, tell_wait, watched


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as a list of one number to be set."""
    now = [100.0]
    monkeypatch.setattr("lorif_assets.progress.time.monotonic", lambda: now[0])
    return now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_log_line_every_fifteen_seconds_tells_rate_and_time_left(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Progress("step-1 docs-0", 4_000, "tok") as progress:
        for seconds in (5, 14, 16, 20, 32):
            clock[0] = 100.0 + seconds
            progress.advance(500)
    assert lines(caplog) == [
        "step-1 docs-0: 1,500 of 4,000 tok (94 tok/s, 27 s left)",
        "step-1 docs-0: 2,500 of 4,000 tok (78 tok/s, 19 s left)",
    ]


def test_partitions_that_are_done_together_tell_the_pace_once_all_of_them_are_counted(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with partition_progress("kfac_bases", 630):
        for _ in range(3):
            clock[0] += 160.0
            for _ in range(210):
                count_partition()
    assert lines(caplog) == [
        "kfac_bases: 1 of 630 partitions",
        "kfac_bases: 211 of 630 partitions (1 partitions/s, 3 min left)",
        "kfac_bases: 421 of 630 partitions (1 partitions/s, 0 s left)",
    ]


def test_partitions_that_are_done_one_by_one_tell_the_pace_from_the_second_on(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with partition_progress("gradient_factors", 3):
        for seconds in (30.0, 30.0, 15.0):
            clock[0] += seconds
            count_partition()
    assert lines(caplog) == [
        "gradient_factors: 1 of 3 partitions",
        "gradient_factors: 2 of 3 partitions (2 partitions/min, 30 s left)",
        "gradient_factors: 3 of 3 partitions (2.4 partitions/min, 0 s left)",
    ]


def test_no_time_is_said_to_be_left_where_a_burst_takes_longer_than_those_before(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with partition_progress("query_scores", 9):
        for seconds in (120.0, 300.0, 300.0):
            clock[0] += seconds
            for _ in range(3):
                count_partition()
    assert lines(caplog) == [
        "query_scores: 1 of 9 partitions",
        "query_scores: 4 of 9 partitions (1.5 partitions/min)",
        "query_scores: 7 of 9 partitions (0.86 partitions/min)",
    ]


def test_short_work_logs_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress("short", 10, "tok") as progress:
        progress.advance(10)
    assert lines(caplog) == []


def test_the_rate_is_units_per_second_since_the_start(clock: list[float]) -> None:
    with Progress("work", 10, "tok") as progress:
        assert progress.rate == 0.0
        clock[0] += 4.0
        progress.advance(10)
        assert progress.rate == 2.5


def test_no_bar_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("work", 10, "tok") as progress:
        progress.advance(10)
    assert capsys.readouterr() == ("", "")


def test_lines_reach_the_log_of_the_run_and_whoever_listens_each_once(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Progress("work", 10, "tok", logging.getLogger("run")) as progress:
        clock[0] += 20.0
        progress.advance(10)
    assert [record.name for record in caplog.records] == ["run", LINES.name]
    caplog.clear()
    with Progress("work", 10, "tok") as progress:
        clock[0] += 20.0
        progress.advance(10)
    assert [record.name for record in caplog.records] == [LINES.name]


def test_a_watcher_is_told_of_work_that_begins_while_it_watches():
    told = []
    with watched(lambda *state: told.append(state)), Progress("scanning", 3, "rows") as progress:
        tell_wait("waiting for cpu")
        progress.advance(2)
        # Also from another thread, as steps of a pipeline are counted.
        thread = Thread(target=progress.advance, args=(1,))
        thread.start()
        thread.join()
    with Progress("unwatched", 1, "rows") as progress:
        progress.advance(1)
    assert told == [
        ("scanning", 0, 3, "rows"),
        ("waiting for cpu", 0, 0, ""),
        ("scanning", 2, 3, "rows"),
        ("scanning", 3, 3, "rows"),
    ]
