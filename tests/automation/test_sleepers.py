"""Sensors and schedules whose last look lies ahead, as after a clock was set back, are named and woken; others are left."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from lorif_assets.automation.sleepers import sleepers, wake

YEAR = 365 * 86_400.0


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def origin(name: str) -> RemoteInstigatorOrigin:
    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="lorif_assets.definitions"))
    return RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)


def sensor(
    instance: dg.DagsterInstance, name: str, looked: float, status: InstigatorStatus = InstigatorStatus.RUNNING
) -> None:
    data = SensorInstigatorData(last_tick_timestamp=looked, last_tick_start_timestamp=looked, cursor="kept")
    instance.add_instigator_state(InstigatorState(origin(name), InstigatorType.SENSOR, status, data))


def schedule(instance: dg.DagsterInstance, name: str, looked: float, ticked: float) -> None:
    data = ScheduleInstigatorData("0 4 * * 0", start_timestamp=1.0, last_iteration_timestamp=looked)
    state = InstigatorState(origin(name), InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, data)
    instance.add_instigator_state(state)
    tick = TickData(
        state.instigator_origin_id,
        name,
        InstigatorType.SCHEDULE,
        TickStatus.SUCCESS,
        ticked,
        selector_id=state.selector_id,
        run_ids=["run"],
    )
    instance.create_tick(tick)


def test_sensors_that_looked_in_the_future_are_awake_again_with_their_cursors(instance: dg.DagsterInstance) -> None:
    now = time.time()
    sensor(instance, "ahead", now + YEAR)
    sensor(instance, "usual", now - 30)
    sensor(instance, "off", now + YEAR, InstigatorStatus.STOPPED)
    assert set(sleepers(instance)) == {"ahead"}
    (said,) = wake(instance)
    assert said.startswith("Dagster's ahead last looked at 20")
    assert said.endswith(" UTC, while the clock was ahead; awake again")
    states = {state.instigator_name: state.instigator_data for state in instance.all_instigator_state()}
    assert (states["ahead"].last_tick_timestamp, states["ahead"].cursor) == (None, "kept")
    assert states["usual"].last_tick_timestamp == pytest.approx(now - 30)
    assert (sleepers(instance), wake(instance)) == ({}, [])


@pytest.mark.parametrize(("looked", "ticked"), [(YEAR, -30.0), (-30.0, YEAR), (YEAR, YEAR)])
def test_a_schedule_that_ran_in_the_future_starts_from_now(
    instance: dg.DagsterInstance, looked: float, ticked: float
) -> None:
    now = time.time()
    schedule(instance, "weekly", now + looked, now + ticked)
    assert set(sleepers(instance)) == {"weekly"}
    (said,) = wake(instance)
    assert said.endswith("awake once dagster-daemon is started again")
    (state,) = instance.all_instigator_state()
    assert now - 1 < state.instigator_data.start_timestamp < now + 60
    assert sleepers(instance) == {}
