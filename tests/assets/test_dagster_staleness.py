"""Dagster's own view of what is fresh agrees with what the lake holds."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from lorif_assets.assets.graph import ASSETS, assets_in_use
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject


def statuses(project: TinyProject) -> dict[str, dict[str, StaleStatus]]:
    """Of every asset, the status of every partition."""
    graph = dg.Definitions(
        assets=[asset.definition for asset in ASSETS], resources=dagster_resources(project.opened)
    ).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(project.instance, graph, LoadingContextForTest(project.instance))
    return {
        asset.name: {
            str(key): resolver.get_status(asset.key, key)
            for key in asset.partitions.get_partition_keys(dynamic_partitions_store=project.instance)
        }
        for asset in assets_in_use(project.settings)
    }


def stale(project: TinyProject) -> dict[str, set[str]]:
    found = {
        name: {key for key, status in partitions.items() if status is not StaleStatus.FRESH}
        for name, partitions in statuses(project).items()
    }
    return {name: keys for name, keys in found.items() if keys}


def test_after_a_full_run_every_partition_is_fresh(tiny_project: TinyProject) -> None:
    counts = {name: len(partitions) for name, partitions in statuses(tiny_project).items()}
    assert counts == {
        "training_examples": 3,
        "query_examples": 1,
        "checkpoints": 2,
        "gradient_factors": 6,
        "svd_preconditioners": 8,
        "query_scores": 2,
        "attribution_report": 2,
        "checkpoint_comparison": 1,
    }
    assert stale(tiny_project) == {}


def test_an_edited_shard_makes_what_depends_on_it_stale_and_no_other_shards_factors(
    recorded_project: TinyProject,
) -> None:
    recorded_project.edit_shard(1, 4, "an error closes the file")
    recorded_project.run("training_examples", SHARDS[1])
    assert stale(recorded_project)["gradient_factors"] == {f"{name}|{SHARDS[1]}" for name in CHECKPOINTS}
    recorded_project.update()
    assert stale(recorded_project) == {}


@pytest.mark.parametrize("many", [False, True], ids=["one partition", "many partitions"])
def test_materializing_the_same_content_again_makes_nothing_stale(recorded_project: TinyProject, many: bool) -> None:
    recorded_project.run("training_examples", *(SHARDS if many else SHARDS[:1]))
    assert stale(recorded_project) == {}
