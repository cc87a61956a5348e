"""States of partitions are counted by the sensor `discovery`, so that no page goes through all materializations."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest

from lorif_assets.assets.graph import GRAPH
from lorif_assets.automation.partition_states import count_states
from lorif_assets.automation.sensors import automation_definitions
from resources import dagster_resources
from tests.conftest import SHARDS, TinyProject

(EXAMPLES,) = [asset for asset in GRAPH if asset.name == "training_examples"]


@pytest.fixture
def project(private_project: TinyProject) -> TinyProject:
    private_project.run("training_examples", SHARDS[0])
    return private_project


def look(project: TinyProject, cursor: str | None) -> str | None:
    """Have the sensor look, and return its new cursor."""
    sensor = automation_definitions(project.settings)[0][0]
    with dg.build_sensor_context(
        instance=project.instance, resources=dagster_resources(project.opened), cursor=cursor
    ) as context:
        said = sensor(context)
        if isinstance(said, dg.SensorResult):
            for request in said.dynamic_partitions_requests or ():
                project.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        return context.cursor


@contextmanager
def whole_counts(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield the assets all of whose materializations are gone through in the block."""
    counted: list[str] = []
    kind = type(project.instance.event_log_storage)
    found = kind.get_materialized_partitions

    def counting(storage: Any, asset_key: dg.AssetKey, *places: Any, **cursors: Any) -> set[str]:
        if not cursors.get("after_cursor"):
            counted.append(asset_key.to_user_string())
        return found(storage, asset_key, *places, **cursors)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "get_materialized_partitions", counting)
        yield counted


def test_after_a_look_that_finds_nothing_new_no_page_goes_through_all_materializations(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(project, None)
    project.instance.add_dynamic_partitions("shards", ["one more"])
    with whole_counts(project, monkeypatch) as counted:
        cursor = look(project, None)
    assert "training_examples" in counted, "new partitions put what Dagster keeps out of date"
    with whole_counts(project, monkeypatch) as counted:
        count_states(project.instance, GRAPH)
    assert counted == []
    states = project.instance.get_status_by_partition(EXAMPLES.key, SHARDS[:2], EXAMPLES.partitions)
    assert states is not None
    assert [state is not None for state in states.values()] == [True, False]
    assert cursor


def test_they_are_counted_once_until_partitions_change(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    cursor = look(project, look(project, None))
    asked: list[object] = []
    monkeypatch.setattr("lorif_assets.automation.sensors.count_states", lambda *given: asked.append(given))
    assert look(project, cursor) == cursor
    assert asked == []
    project.instance.add_dynamic_partitions("shards", ["one more"])
    assert look(project, cursor) != cursor
    assert len(asked) == 1
