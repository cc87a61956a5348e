"""Sensors and schedules that looked while the clock was ahead: Dagster lets each of them rest until that time has come."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, ScheduleInstigatorData, SensorInstigatorData

# Clocks of machines that share a database differ by less.
_AHEAD_SECONDS = 600


def sleepers(instance: dg.DagsterInstance) -> Mapping[str, datetime]:
    """Return the running sensors and schedules whose last look lies ahead, by name, with its time."""
    return {state.instigator_name: until for state, until in _asleep(instance)}


def wake(instance: dg.DagsterInstance) -> Sequence[str]:
    """Have Dagster forget looks that lie ahead, and return what had been asleep and what else it takes, in sentences."""
    said = []
    for state, until in _asleep(instance):
        match state.instigator_data:
            case SensorInstigatorData() as data:
                forgotten = data._replace(last_tick_timestamp=None, last_tick_start_timestamp=None)
                instance.update_instigator_state(state.with_data(forgotten))
                rest = "awake again"
            case ScheduleInstigatorData() as data:
                after = until.timestamp() + 1
                instance.purge_ticks(state.instigator_origin_id, state.selector_id, before=after)
                forgotten_times = data._replace(start_timestamp=time.time(), last_iteration_timestamp=None)
                instance.update_instigator_state(state.with_data(forgotten_times))
                rest = "awake once dagster-daemon is started again"
            case _:
                continue
        said.append(f"{asleep_in_words({state.instigator_name: until})}; {rest}")
    return said


def asleep_in_words(found: Mapping[str, datetime]) -> str:
    """Return which sensors and schedules are asleep, and until when, as part of a sentence."""
    return f"Dagster's {', '.join(found)} last looked at {max(found.values()):%Y-%m-%d %H:%M} UTC, while the clock was ahead"


def _asleep(instance: dg.DagsterInstance) -> Sequence[tuple[InstigatorState, datetime]]:
    times = [(state, _last_look(instance, state)) for state in instance.all_instigator_state() if state.is_running]
    return [(state, datetime.fromtimestamp(last, UTC)) for state, last in times if last > time.time() + _AHEAD_SECONDS]


def _last_look(instance: dg.DagsterInstance, state: InstigatorState) -> float:
    match state.instigator_data:
        case SensorInstigatorData() as data:
            return max(data.last_tick_timestamp or 0.0, data.last_tick_start_timestamp or 0.0)
        case ScheduleInstigatorData() as data:
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
            times = [data.start_timestamp, data.last_iteration_timestamp, *(tick.timestamp for tick in ticks)]
            return max(moment or 0.0 for moment in times)
    return 0.0
