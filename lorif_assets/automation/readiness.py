"""Which stale partitions can be computed now: those whose inputs are all up to date.

A stale partition blocks whatever is made from it. Partitions are blocked by the names that they have in some dimensions: a
stale shard blocks the factors of that shard at every checkpoint, and every layer's curvature, which is made from all shards.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from lorif_assets.assets.attribution_asset import AttributionAsset, Wait
from lorif_assets.assets.graph import ASSETS
from lorif_assets.assets.partitions import dimensions, shared_dimensions
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.stale import StalePartitions
from lorif_assets.freshness.view import Freshness

_Names = tuple[str, ...]


class _Blocked:
    """Partitions, given by their names in some dimensions; in other dimensions they may have any name."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, ...], set[_Names]] = {}

    def add(self, other: "_Blocked", common_dimensions: frozenset[str]) -> None:
        """Add the partitions whose names in the common dimensions are those of others."""
        for key_dimensions, all_names in other._names.items():
            at = [index for index, dimension in enumerate(key_dimensions) if dimension in common_dimensions]
            projected = {tuple(names[index] for index in at) for names in all_names}
            self._names.setdefault(tuple(key_dimensions[index] for index in at), set()).update(projected)

    def add_keys(self, keys: Iterable[str], key_dimensions: tuple[str, ...]) -> None:
        """Add single partitions, by their keys and the dimensions of these."""
        if names := {tuple(key.split("|")) for key in keys}:
            self._names.setdefault(key_dimensions, set()).update(names)

    def has(self, key: str, key_dimensions: tuple[str, ...]) -> bool:
        """Whether a partition is among them, by its key and the dimensions of this."""
        name = dict(zip(key_dimensions, key.split("|"), strict=True))
        return any(tuple(name[dimension] for dimension in given) in names for given, names in self._names.items())


class Waits:
    """Which partitions wait for others; assets are told of in the order of the graph."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held_up: dict[str, Collection[str]] = {}
        self._blocked: dict[str, _Blocked] = {}

    def ready(self, asset: AttributionAsset, freshness: Freshness, stale: StalePartitions) -> StalePartitions:
        """Return the stale partitions of an asset that wait for nothing."""
        waiting = self._blocked[asset.name] = self._waiting(asset)
        key_dimensions = dimensions(asset.partitions)
        return {
            key: partition
            for key, partition in stale.items()
            if not any(waiting.has(companion, key_dimensions) for companion in asset.companions(freshness, key))
        }

    def hold_up(self, asset: AttributionAsset, keys: Collection[str]) -> None:
        """Let what is made from these partitions of an asset wait."""
        self._held_up[asset.name] = keys

    def _waiting(self, asset: AttributionAsset) -> _Blocked:
        """Return the partitions of an asset that wait for an input, from what is held up and blocked upstream."""
        waiting = _Blocked()
        for asset_input in asset.inputs:
            if asset_input.wait is Wait.NEVER or not asset_input.is_used(self._settings):
                continue
            upstream = asset_input.asset
            common = shared_dimensions(asset_input.mapping, upstream.partitions, asset.partitions)
            own = _Blocked()
            own.add_keys(self._held_up.get(upstream.name, ()), dimensions(upstream.partitions))
            waiting.add(own, common)
            if asset_input.wait is Wait.FOR_ALL_BEFORE_IT and upstream.name in self._blocked:
                waiting.add(self._blocked[upstream.name], common)
        return waiting


def ready_partitions(
    freshness: Freshness,
    assets: Sequence[AttributionAsset] = ASSETS,
    given_up: Callable[[AttributionAsset, StalePartitions], Collection[str]] = lambda _asset, _stale: (),
) -> Iterator[tuple[str, StalePartitions]]:
    """Yield each asset with its stale partitions whose inputs are all up to date, in the order of the graph.

    Args:
        freshness: of the project.
        assets: the graph, each asset after those that it is made from.
        given_up: of an asset that reads what lies outside, and of its stale partitions, those that failed too often: the
            others go on without them.
    """
    waits = Waits(freshness.settings)
    for asset in assets:
        stale = asset.stale(freshness)
        yield asset.name, waits.ready(asset, freshness, stale)
        left = () if asset.inputs else given_up(asset, stale)
        waits.hold_up(asset, [key for key in stale if key not in left])
