"""Shards whose source has changed since it was read."""

from collections.abc import Mapping
from dataclasses import replace

from lorif_assets.config.settings import Settings
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.shards import changes_since, survey
from lorif_assets.freshness.stale import Stale, StalePartitions, stale_partitions
from lorif_assets.lake.file_samples import is_same_version

_REASON = "its source changed"


def stale_shards(settings: Settings, stored_versions: Mapping[str, str]) -> StalePartitions:
    """Return the shards that were never read, or whose source was written since.

    A commit to a Delta table is traced to the shards whose rows it changed; the others keep the version at which they
    were read. Where the table's history does not say, all its shards are out of date, and the reason says why.

    Args:
        settings: where the sources are.
        stored_versions: by shard, the version of the source at which it was read.

    Raises:
        SourceError: nothing of any source can be listed.
    """
    pieces = {piece.shard: piece for piece in survey(settings.sources, settings.base).shards}
    versions = {shard: piece.version for shard, piece in pieces.items()}
    candidates = stale_partitions(versions, without_missing_samples(stored_versions, versions), _REASON)
    checked = {
        shard: _checked(settings, pieces[shard], stored_versions[shard], stale) if shard in stored_versions else stale
        for shard, stale in candidates.items()
    }
    return {shard: stale for shard, stale in checked.items() if stale is not None}


def without_missing_samples(stored_versions: Mapping[str, str], versions: Mapping[str, str]) -> dict[str, str]:
    """Return stored versions of files, as the current ones where they lack nothing but samples, which were not always taken."""
    return {
        name: versions[name] if name in versions and is_same_version(stored, versions[name]) else stored
        for name, stored in stored_versions.items()
    }


def _checked(settings: Settings, piece: ShardSlice, version: str, stale: Stale) -> Stale | None:
    """Return why a shard with an older version is out of date, or None if its rows are still the same."""
    if piece.fault:
        return replace(stale, reason=f"{_REASON}, and cannot be read: {piece.fault}")
    source = next(source for source in settings.sources if source.name == piece.source)
    changes = changes_since(source, piece, version, settings.base)
    if changes is None or piece.bucket is None:
        return stale
    if changes.gap:
        return replace(stale, reason=f"{_REASON}, and which of its rows did is unknown: {changes.gap}")
    return stale if changes.touches(piece.bucket) else None
