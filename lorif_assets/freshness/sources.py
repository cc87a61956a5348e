"""Shards whose source says other than what was read of it."""

from collections.abc import Mapping
from dataclasses import replace

from lorif_assets.config.settings import Settings
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.shards import changes_since, list_all_shards
from lorif_assets.freshness.stale import Stale, StalePartitions, differing

_REASON = "its source changed"


def stale_shards(settings: Settings, stored: Mapping[str, str]) -> StalePartitions:
    """Return the shards that were never read, or whose source was written since.

    A commit to a Delta table is followed to the shards whose rows it changed; the others keep the version at which they
    were read. Where the table's history does not say, all its shards are out of date, and the reason says why.

    Args:
        settings: where the sources are.
        stored: by shard, the version of the source at which it was read.

    Raises:
        SourceError: a source is not there or cannot be read.
    """
    pieces = {piece.shard: piece for piece in list_all_shards(settings.sources, settings.base)}
    newer = differing({shard: piece.version for shard, piece in pieces.items()}, stored, _REASON)
    followed = {
        shard: _followed(settings, pieces[shard], stored[shard], stale) if shard in stored else stale
        for shard, stale in newer.items()
    }
    return {shard: stale for shard, stale in followed.items() if stale is not None}


def _followed(settings: Settings, piece: ShardSlice, version: str, stale: Stale) -> Stale | None:
    """Return why a shard with an older version is out of date, or None where its rows are still the same."""
    source = next(source for source in settings.sources if source.name == piece.source)
    changes = changes_since(source, piece, version, settings.base)
    if changes is None or piece.bucket is None:
        return stale
    if changes.unknown:
        return replace(stale, reason=f"{_REASON}, and which of its rows did is unknown: {changes.unknown}")
    return stale if changes.touches(piece.bucket) else None
