"""What is found outside becomes partitions: by hand, and by the sensor that Dagster runs."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import dagster as dg
import pytest

from lorif_assets.automation import registration
from lorif_assets.automation.registration import kept_checkpoints, new_partitions, register, retired_partitions
from lorif_assets.automation.sensors import automation_definitions
from lorif_assets.config.settings import Settings
from lorif_assets.errors import SettingsError, SourceError
from lorif_assets.freshness.discovery import Discovered, discover
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

PARTITIONS = ("shards", "checkpoints", "query_sets", "layers")


def found(project: TinyProject) -> Discovered:
    return discover(project.opened)


def known(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    return {name: list(instance.get_dynamic_partitions(name)) for name in PARTITIONS}


def tick(project: TinyProject) -> dg.SensorResult | dg.SkipReason:
    """What the sensor `discovery` answers."""
    (sensor, *_), _ = automation_definitions(Settings())
    assert sensor.name == "discovery"
    resources = dagster_resources(project.opened)
    with dg.build_sensor_context(instance=project.instance, resources=resources) as context:
        answer = sensor(context)
    assert isinstance(answer, dg.SensorResult | dg.SkipReason)
    return answer


def test_shards_checkpoints_and_query_sets_are_found(tiny_project: TinyProject) -> None:
    discovered = found(tiny_project)
    assert discovered.shards == SHARDS
    assert discovered.checkpoints == CHECKPOINTS
    assert discovered.query_sets == (QUERY_SET,)


def test_layers_of_recorded_checkpoints_are_partitions_of_any_instance_that_looks_at_the_lake(
    tiny_project: TinyProject,
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        register(instance, found(tiny_project))
        assert known(instance) == known(tiny_project.instance)
        assert len(known(instance)["layers"]) == 4


def test_a_fresh_dagster_brings_an_old_lake_up_to_date(private_project: TinyProject) -> None:
    private_project.edit_shard(1, 4, "an error closes the file")
    with dg.DagsterInstance.ephemeral() as instance:
        project = replace(private_project, instance=instance)
        assert len(project.update()["svd_preconditioners"]) == 8
        assert project.update() == {}


def test_registering_twice_adds_nothing(private_project: TinyProject) -> None:
    before = known(private_project.instance)
    assert new_partitions(private_project.instance, found(private_project)) == []
    register(private_project.instance, found(private_project))
    assert known(private_project.instance) == before


def test_without_sources_there_is_nothing_to_attribute_to(tiny_project: TinyProject) -> None:
    settings = tiny_project.settings.model_copy(update={"sources": ()})
    with pytest.raises(SettingsError, match=r"names no \[\[sources\]\].*`lorif init`"):
        discover(replace(tiny_project.opened, settings=settings))


def test_a_source_that_is_not_there_is_an_error(private_project: TinyProject) -> None:
    shutil.rmtree(private_project.root / "data")
    with pytest.raises(SourceError, match=r"source 'docs': nothing is at .*data"):
        found(private_project)


# --- The sensor ------------------------------------------------------------------------------------------------------


def test_the_sensor_adds_what_is_new_and_only_that(private_project: TinyProject) -> None:
    root = private_project.root
    shutil.copy(root / "data/00000.jsonl", root / "data/00003.jsonl")
    shutil.copytree(root / "checkpoints" / CHECKPOINTS[0], root / "checkpoints/step-000300")
    shutil.copy(root / f"queries/{QUERY_SET}.jsonl", root / "queries/more.jsonl")
    answer = tick(private_project)
    assert isinstance(answer, dg.SensorResult)
    assert {
        request.partitions_def_name: list(request.partition_keys)
        for request in answer.dynamic_partitions_requests or ()
    } == {"shards": ["docs-00003-00000"], "checkpoints": ["step-000300"], "query_sets": ["more"]}
    assert not answer.run_requests


def test_the_sensor_skips_where_nothing_is_new(private_project: TinyProject) -> None:
    answer = tick(private_project)
    assert isinstance(answer, dg.SkipReason)
    assert answer.skip_message == "nothing new"


def test_the_sensor_skips_with_the_message_of_what_is_wrong(private_project: TinyProject) -> None:
    shutil.rmtree(private_project.root / "checkpoints")
    answer = tick(private_project)
    assert isinstance(answer, dg.SkipReason)
    assert "checkpoints does not exist; correct `checkpoints.path`" in (answer.skip_message or "")


def of_checkpoints(*names: str, shards: int = 10) -> Discovered:
    files = tuple(SimpleNamespace(name=name) for name in names)
    return Discovered(tuple(f"s{number}" for number in range(shards)), files, (), ())  # type: ignore[arg-type]


def test_dagster_has_the_active_checkpoints_and_the_newest_others_within_its_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registration, "MOST_PARTITIONS", 30)
    assert kept_checkpoints(of_checkpoints("a", "b", "c"), ()) == ["a", "b", "c"]
    assert kept_checkpoints(of_checkpoints("a", "b", "c", "d", "e"), ("a",)) == ["a", "d", "e"]
    every = ("a", "b", "c", "d")
    assert kept_checkpoints(of_checkpoints(*every), every) == list(every), (
        "what is active is computed, however much it is"
    )


def test_checkpoints_that_are_no_longer_active_leave_dagster_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registration, "MOST_PARTITIONS", 30)
    with dg.DagsterInstance.ephemeral() as instance:
        register(instance, of_checkpoints("a", "b", "c"), ("c",))
        assert retired_partitions(instance, of_checkpoints("a", "b", "c"), ("c",)) == []
        later = of_checkpoints("a", "b", "c", "d", "e")
        register(instance, later, ("e",))
        assert known(instance)["checkpoints"] == ["a", "b", "c", "d", "e"], "one more look, and there is room again"
        (request,) = retired_partitions(instance, later, ("e",))
        assert request.partition_keys == ["a", "b"]
        instance.delete_dynamic_partition("checkpoints", "a")
        instance.delete_dynamic_partition("checkpoints", "b")
        assert new_partitions(instance, later, ("e",)) == []
        (back,) = new_partitions(instance, later, ("a", "e"))
        assert back.partition_keys == ["a"], "one that is asked for comes back"


def test_a_checkpoint_that_a_run_is_about_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "MOST_PARTITIONS", 30)
    found = of_checkpoints("a", "b", "c", "d")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("checkpoints", list(found.checkpoints))
        instance.add_dynamic_partitions("shards", list(found.shards))
        (request,) = retired_partitions(instance, found, ("d",))
        assert request.partition_keys == ["a"]

        @dg.job
        def busy() -> None:
            return None

        instance.create_run_for_job(busy, tags={"dagster/partition": "a|s1"}, status=dg.DagsterRunStatus.STARTED)
        assert retired_partitions(instance, found, ("d",)) == []
