"""Which stale partitions can be computed now: those of which all inputs are up to date.

What is stale blocks what is made of it. Partitions are blocked by the names that they have in some dimensions: a stale shard
blocks the factors of that shard at every checkpoint, and every layer's curvature, which is made of all shards.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorif_assets.assets.attribution_asset import AttributionAsset, Wait
from lorif_assets.assets.graph import ASSETS
from lorif_assets.assets.partitions import dimensions, shared_dimensions
from lorif_assets.freshness.stale import StalePartitions
from lorif_assets.freshness.view import Freshness

_Names = tuple[str, ...]


class _Blocked:
    """Partitions, given by what their names in some dimensions are; in other dimensions they may have any."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, ...], set[_Names]] = {}

    def add(self, other: "_Blocked", shared: frozenset[str]) -> None:
        """Add partitions that have in the shared dimensions the same names as others."""
        for where, found in other._names.items():
            at = [index for index, dimension in enumerate(where) if dimension in shared]
            projected = {tuple(names[index] for index in at) for names in found}
            self._names.setdefault(tuple(where[index] for index in at), set()).update(projected)

    def add_keys(self, keys: Iterable[str], where: tuple[str, ...]) -> None:
        """Add single partitions, of these dimensions."""
        if names := {tuple(key.split("|")) for key in keys}:
            self._names.setdefault(where, set()).update(names)

    def has(self, key: str, where: tuple[str, ...]) -> bool:
        """Whether a partition of these dimensions is among them."""
        name = dict(zip(where, key.split("|"), strict=True))
        return any(tuple(name[dimension] for dimension in known) in names for known, names in self._names.items())


def ready_partitions(
    freshness: Freshness, assets: Sequence[AttributionAsset] = ASSETS
) -> Iterator[tuple[str, StalePartitions]]:
    """Yield each asset with its stale partitions whose inputs are all up to date, in the order of the graph.

    Args:
        freshness: of the project.
        assets: the graph, each asset after those that it is made of.
    """
    stale: dict[str, StalePartitions] = {}
    blocked: dict[str, _Blocked] = {}
    for asset in assets:
        where = dimensions(asset.partitions)
        waits = _waiting(asset, freshness, stale, blocked)
        found = stale[asset.name] = asset.stale(freshness)
        blocked[asset.name] = waits
        yield (
            asset.name,
            {
                key: partition
                for key, partition in found.items()
                if not any(waits.has(one, where) for one in asset.computed_with(freshness, key))
            },
        )


def _waiting(
    asset: AttributionAsset,
    freshness: Freshness,
    stale: Mapping[str, StalePartitions],
    blocked: Mapping[str, _Blocked],
) -> _Blocked:
    """Return the partitions of an asset that wait for an input, from what is stale and blocked before it."""
    waits = _Blocked()
    for one in asset.inputs:
        if one.wait is Wait.NEVER or not one.is_used(freshness.settings):
            continue
        above = one.asset
        shared = shared_dimensions(one.mapping, above.partitions, asset.partitions)
        own = _Blocked()
        own.add_keys(stale[above.name], dimensions(above.partitions))
        waits.add(own, shared)
        if one.wait is Wait.FOR_ALL_BEFORE_IT:
            waits.add(blocked[above.name], shared)
    return waits
