"""The graph as its assets declare it: an order that holds, and mappings that mean to us what they mean to Dagster."""

import inspect
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import dagster as dg
import pytest

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import AttributionAsset, Input
from lorif_assets.assets.graph import ASSETS, EVALUATION, GRAPH, assets_in_use
from lorif_assets.assets.preconditioners import PRECONDITIONERS
from lorif_assets.attribution.stored.curvatures import CURVATURES
from lorif_assets.lake.attribution_tables import PRECONDITIONER_TABLES
from tests.conftest import TinyProject

NAMES = {
    partitions.CHECKPOINT: ("early", "late"),
    partitions.SHARD: ("a", "b"),
    partitions.LAYER: ("first", "second"),
    partitions.QUERY_SET: ("questions", "others"),
    partitions.SUBSET: ("half", "rest"),
}
MAPPED = [
    (asset, one) for asset in GRAPH for one in asset.inputs if one.is_dependency and one.mapping != partitions.every()
]


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        for definition, names in (
            ("checkpoints", NAMES[partitions.CHECKPOINT]),
            ("shards", NAMES[partitions.SHARD]),
            ("layers", NAMES[partitions.LAYER]),
            ("query_sets", NAMES[partitions.QUERY_SET]),
            ("subsets", NAMES[partitions.SUBSET]),
        ):
            found.add_dynamic_partitions(definition, names)
        yield found


def keys(asset: AttributionAsset) -> list[str]:
    return ["|".join(names) for names in product(*(NAMES[name] for name in partitions.dimensions(asset.partitions)))]


def test_every_asset_comes_after_what_it_is_made_of() -> None:
    for place, asset in enumerate(GRAPH):
        assert {one.asset for one in asset.inputs} <= set(GRAPH[:place])


def test_every_asset_is_brought_up_to_date_by_itself_or_on_demand() -> None:
    assert (*ASSETS, *EVALUATION) == GRAPH
    assert {asset.definition.specs_by_key[asset.key].group_name for asset in EVALUATION} == {"evaluation"}


@pytest.mark.parametrize("asset", GRAPH, ids=lambda asset: asset.name)
def test_an_asset_has_a_file_of_its_own_that_is_named_after_it(asset: AttributionAsset) -> None:
    # Those of curvatures are made alike, from their tables.
    name = "preconditioners" if asset in PRECONDITIONERS else asset.name
    assert Path(inspect.getfile(partitions)).with_name(f"{name}.py").is_file()


def test_every_curvature_is_kept_by_one_asset_that_is_named_after_its_table() -> None:
    tables = [kind.table for kind in CURVATURES.values()]
    assert [asset.table for asset in PRECONDITIONERS] == list(PRECONDITIONER_TABLES)
    assert {asset.name for asset in PRECONDITIONERS} == {table.name for table in tables}


@pytest.mark.parametrize("asset", GRAPH, ids=lambda asset: asset.name)
def test_what_is_made_from_one_curvature_is_made_from_each(asset: AttributionAsset) -> None:
    given = [one.asset for one in asset.inputs if one.asset in PRECONDITIONERS]
    assert tuple(given) in ((), PRECONDITIONERS)


@pytest.mark.parametrize("asset", GRAPH, ids=lambda asset: asset.name)
def test_dagster_knows_the_dependencies_that_are_declared(asset: AttributionAsset) -> None:
    (spec,) = asset.definition.specs
    declared = {one.asset.key: one.mapping for one in asset.inputs if one.is_dependency}
    assert {dep.asset_key: dep.partition_mapping for dep in spec.deps} == declared


@pytest.mark.parametrize(
    ("asset", "given"), MAPPED, ids=[f"{asset.name} from {one.asset.name}" for asset, one in MAPPED]
)
def test_partitions_map_as_in_dagster(asset: AttributionAsset, given: Input, instance: dg.DagsterInstance) -> None:
    upstream = given.asset
    mapping = given.mapping or dg.IdentityPartitionMapping()
    shared = partitions.shared_dimensions(given.mapping, upstream.partitions, asset.partitions)
    for key in keys(asset):
        names = dict(zip(partitions.dimensions(asset.partitions), key.split("|"), strict=True))
        found = mapping.get_upstream_mapped_partitions_result_for_partitions(
            asset.partitions.empty_subset().with_partition_keys([key]),
            asset.partitions,
            upstream.partitions,
            dynamic_partitions_store=instance,
        )
        where = partitions.dimensions(upstream.partitions)
        assert set(found.partitions_subset.get_partition_keys()) == {
            other
            for other in keys(upstream)
            if all(dict(zip(where, other.split("|"), strict=True))[name] == names[name] for name in shared)
        }


def test_all_partitions_share_no_name() -> None:
    assert partitions.shared_dimensions(partitions.every(), partitions.shards, partitions.checkpoints) == frozenset()


def test_a_mapping_that_nothing_is_known_of_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the shared dimensions of .* are unknown"):
        partitions.shared_dimensions(dg.LastPartitionMapping(), partitions.shards, partitions.shards)


def test_the_curvature_and_influcoder_decide_which_assets_are_used(
    tiny_project: TinyProject, ekfac_project: TinyProject
) -> None:
    names = {asset.name for asset in assets_in_use(tiny_project.settings)}
    whitened = {asset.name for asset in assets_in_use(ekfac_project.settings)}
    assert names - whitened == {"svd_preconditioners"}
    assert whitened - names == {"kfac_bases", "ekfac_preconditioners"}
    everything = assets_in_use(tiny_project.with_settings(influcoder={"enabled": True}).settings)
    assert {asset.name for asset in everything} - names == {
        "influence_targets",
        "influcoder_encoder",
        "influence_embeddings",
        "influcoder_scores",
        "influcoder_agreement",
        "recall_curves",
    }
