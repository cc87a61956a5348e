"""Whether long examples lead a ranking: the size of values by the examples' length."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from lorif_assets.influences.ranked import Ranked
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake

_BINS = 10


@dataclass(frozen=True)
class LengthBin:
    """Examples of `low` to `high` tokens that carry loss: how many, and the mean magnitude of their values."""

    low: int
    high: int
    n_examples: int
    mean_magnitude: float


def by_length(lake: Lake, checkpoint: str, ranked: Ranked) -> tuple[LengthBin, ...]:
    """Return the values of a whole ranking by length, in bins of about as many examples each; none of a part of one."""
    if not ranked.is_complete:
        return ()
    pair = ["shard", "example_id"]
    lengths = lake.read(GRADIENT_FACTORS, [*pair, "n_target_tokens"], checkpoint=checkpoint)
    found = (
        ranked.rows.filter(pl.col("value").is_finite())
        .unique(pair)
        .join(lengths, on=pair, how="inner")
        .sort("n_target_tokens", *pair)
    )
    parts = (found[places] for places in np.array_split(np.arange(found.height), _BINS) if len(places))
    return tuple(
        LengthBin(
            low=part["n_target_tokens"][0],
            high=part["n_target_tokens"][-1],
            n_examples=part.height,
            mean_magnitude=float(np.abs(part["value"].to_numpy()).mean()),
        )
        for part in parts
    )
