"""Partitions of two dimensions: which keys are among them, found as Dagster finds it, without an object for each."""

import dagster as dg
import pytest

from lorif_assets.assets import partitions

KEPT = ("step-2", "step-3")
KEYS = {
    *(f"{checkpoint}|{shard}" for checkpoint in ("step-1", *KEPT) for shard in ("a", "b", "gone")),
    "step-2",
    "step-2|a|b",
    "|a",
    "step-2|",
    "",
}


@pytest.fixture
def instance() -> dg.DagsterInstance:
    """An instance that knows two checkpoints and two shards."""
    with dg.DagsterInstance.ephemeral() as instance:
        partitions.add_partitions(instance, "checkpoints", KEPT)
        partitions.add_partitions(instance, "shards", ("a", "b"))
        yield instance


def test_the_valid_ones_of_some_keys_are_those_that_dagster_finds(instance: dg.DagsterInstance) -> None:
    ours = partitions.checkpoint_by_shard
    plain = dg.MultiPartitionsDefinition({"checkpoint": partitions.checkpoints, "shard": partitions.shards})
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        found = ours.filter_valid_partition_keys(KEYS)
        assert found == plain.filter_valid_partition_keys(KEYS)
        assert ours.filter_valid_partition_keys(set()) == set()
        assert ours.get_serializable_unique_identifier() == plain.get_serializable_unique_identifier()
    assert found == {f"{checkpoint}|{shard}" for checkpoint in KEPT for shard in ("a", "b")}


def test_dagster_counts_by_them_without_an_object_for_each_key_that_was_ever_materialized(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS - {""}:
        instance.report_runless_asset_event(dg.AssetMaterialization("gradient_factors", partition=key))

    def refused(*_: object) -> None:
        raise AssertionError("an object for a key was made")

    monkeypatch.setattr("dagster._core.definitions.partitions.definition.multi.MultiPartitionKey", refused)
    states = instance.get_status_by_partition(
        dg.AssetKey("gradient_factors"), ["step-2|a", "step-3|b", "step-1|a"], partitions.checkpoint_by_shard
    )
    assert states is not None
    assert [state is not None for state in states.values()] == [True, True, False]
