"""Partitions that are missing or out of date, each with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass

MISSING = "missing"


@dataclass(frozen=True)
class Stale:
    """Why a partition is out of date, and the version that it should have."""

    reason: str
    version: str


StalePartitions = Mapping[str, Stale]
"""By partition key."""


def stale_partitions(versions: Mapping[str, str], stored_versions: Mapping[str, str], reason: str) -> StalePartitions:
    """Return the partitions whose stored version is not the one that they should have.

    Args:
        versions: by partition key, the version that it should have.
        stored_versions: by partition key, the version that it has.
        reason: why a partition that is stored is out of date.
    """
    return {
        key: Stale(reason if key in stored_versions else MISSING, version)
        for key, version in versions.items()
        if stored_versions.get(key) != version
    }
