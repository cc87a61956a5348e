"""At which rate the newest run computed factors, as Dagster records it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lorif_assets.assets.gradient_factors import gradient_factors

_LOOKED_AT = 200
"""Materializations, the newest ones."""


@dataclass(frozen=True)
class MeasuredRate:
    """What the shards of one run took."""

    tokens: int
    examples: int
    seconds: float
    """Of a worker's work."""
    hardware: str
    """Of each of the worker's devices."""
    devices: int
    shards: int
    checkpoint: str
    finished: datetime

    @property
    def tokens_per_second(self) -> float:
        """Of one worker."""
        return self.tokens / self.seconds

    @property
    def tokens_per_example(self) -> float:
        """What the examples of these shards were long."""
        return self.tokens / self.examples


def measured_rate(instance: dg.DagsterInstance, recipe: str) -> MeasuredRate | None:
    """Return the rate of the newest run that computed factors of a recipe, or None where none of the newest shards has one.

    Args:
        instance: Dagster's instance.
        recipe: the hash of the recipe of factors: another one takes another time.
    """
    records = instance.fetch_materializations(gradient_factors.key, limit=_LOOKED_AT).records
    computed = []
    for record in records:
        event = record.asset_materialization
        figures: dict[str, Any] = {name: value.value for name, value in event.metadata.items()} if event else {}
        if figures.get("recipe") == recipe and figures.get("seconds"):
            computed.append((record, figures))
    if not computed:
        return None
    newest, first = computed[0]
    alike = [
        figures
        for record, figures in computed
        if (record.run_id, figures["hardware"], figures["device"])
        == (newest.run_id, first["hardware"], first["device"])
    ]
    return MeasuredRate(
        tokens=sum(figures["tokens"] for figures in alike),
        examples=sum(figures["dagster/row_count"] for figures in alike),
        seconds=sum(figures["seconds"] for figures in alike),
        hardware=first["hardware"],
        devices=len(first["device"].split(" + ")),
        shards=len(alike),
        checkpoint=str(newest.partition_key).partition("|")[0],
        finished=datetime.fromtimestamp(newest.timestamp, tz=UTC),
    )
