"""Partitions that are missing or out of date, each with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass

MISSING = "missing"


@dataclass(frozen=True)
class Stale:
    """Why a partition is out of date, and the version that it should have."""

    reason: str
    wanted: str


StalePartitions = Mapping[str, Stale]
"""By partition key."""


def differing(wanted: Mapping[str, str], stored: Mapping[str, str], why: str) -> StalePartitions:
    """Return the partitions whose stored version is not the wanted one."""
    return {
        key: Stale(why if key in stored else MISSING, version)
        for key, version in wanted.items()
        if stored.get(key) != version
    }
