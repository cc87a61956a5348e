"""Which assets a person asks for, and what bringing them up to date would compute."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.assets.graph import GRAPH, assets_in_use
from lorif_assets.config.settings import Settings
from lorif_assets.errors import SettingsError
from lorif_assets.freshness.stale import StalePartitions
from lorif_assets.freshness.view import Freshness


def selected_assets(settings: Settings, names: Sequence[str] = ()) -> Sequence[AttributionAsset]:
    """Return the assets of these names and those that they are made from, upstream first; without names, all in use.

    Raises:
        SettingsError: there is no asset of a name, or it is not used under these settings.
    """
    if not names:
        return assets_in_use(settings)
    by_name = {asset.name: asset for asset in GRAPH}
    wanted: set[str] = set()
    for name in names:
        if name not in by_name:
            raise SettingsError(f"there is no asset {name!r}; there are {', '.join(by_name)}")
        if not by_name[name].is_used(settings):
            raise SettingsError(f"the asset {name!r} is not used under these settings, and has nothing to do")
        wanted.update(_with_inputs(by_name[name], settings))
    return [asset for asset in GRAPH if asset.name in wanted]


def _with_inputs(asset: AttributionAsset, settings: Settings) -> Iterator[str]:
    yield asset.name
    for one in asset.inputs:
        if one.is_used(settings) and one.is_read(settings) and one.asset.is_used(settings):
            yield from _with_inputs(one.asset, settings)


@dataclass(frozen=True)
class Outlook:
    """What of an asset is known to be computed, and whether more may follow from what is computed before it."""

    asset: str
    partitions: StalePartitions
    may_follow: bool


def outlook(freshness: Freshness, selection: Sequence[AttributionAsset]) -> Iterator[Outlook]:
    """Yield what bringing each asset up to date would compute; nothing is computed for it.

    An asset is compared with what is stored before it: what follows from partitions that are computed is known afterwards.
    """
    moved: set[str] = set()
    for asset in selection:
        stale = asset.stale(freshness)
        follows = any(one.asset.name in moved for one in asset.inputs if one.is_used(freshness.settings))
        if stale or follows:
            moved.add(asset.name)
        yield Outlook(asset.name, stale, follows)
