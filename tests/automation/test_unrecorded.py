"""A run that dies after its commit to the lake and before Dagster hears of it leaves no partition failed for ever."""

from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.svd_preconditioners import svd_preconditioners
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.automation.unrecorded import unrecorded
from lorif_assets.errors import MismatchError
from tests.automation.test_re_attribution import evaluate
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject


def state(project: TinyProject, shard: str) -> AssetPartitionStatus | None:
    states = project.instance.get_status_by_partition(training_examples.key, list(SHARDS), training_examples.partitions)
    return (states or {}).get(shard)


@pytest.fixture
def interrupted(private_project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A project whose second shard was stored again by a run that died then; nothing is out of date."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartitionRun, "commit", die)
        with pytest.raises((KeyboardInterrupt, dg.DagsterExecutionInterruptedError)):
            private_project.run("training_examples", SHARDS[1])
    assert private_project.stale("training_examples") == {}
    assert state(private_project, SHARDS[1]) is AssetPartitionStatus.FAILED
    return private_project


def test_it_is_run_once_more_and_then_known(interrupted: TinyProject) -> None:
    assert interrupted.update()["training_examples"] == {SHARDS[1]}
    assert state(interrupted, SHARDS[1]) is AssetPartitionStatus.MATERIALIZED
    assert interrupted.update() == {}


def test_the_sensor_runs_it_when_nothing_is_out_of_date(interrupted: TinyProject) -> None:
    (request,) = evaluate(interrupted, "re_attribution_sensor").run_requests
    assert (request.job_name, request.partition_key) == ("materialize_training_examples", SHARDS[1])
    interrupted.edit_shard(0, 0, "a new first sentence")
    (request,) = evaluate(interrupted, "re_attribution_sensor").run_requests
    assert request.partition_key == SHARDS[0]


def test_what_dagster_never_heard_of_is_left_alone(interrupted: TinyProject) -> None:
    found = unrecorded(interrupted.instance, interrupted.freshness, training_examples, ())
    assert set(found) == {SHARDS[1]}
    assert state(interrupted, SHARDS[0]) is None


def test_a_partition_that_failed_and_that_nothing_asks_for_stops_nobody(private_project: TinyProject) -> None:
    nobody = f"{CHECKPOINTS[1]}|ghost.layer"
    private_project.instance.add_dynamic_partitions("layers", ["ghost.layer"])
    with pytest.raises(MismatchError, match=r"no tracked layer 'ghost\.layer'"):
        private_project.run("svd_preconditioners", nobody)
    # Another checkpoint may have the layer: then it is among those that are looked at.
    freshness = private_project.freshness
    discovered = replace(freshness.discovered, layers=(*freshness.discovered.layers, "ghost.layer"))
    assert (
        unrecorded(private_project.instance, replace(freshness, discovered=discovered), svd_preconditioners, ()) == {}
    )
