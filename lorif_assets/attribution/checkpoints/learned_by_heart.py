"""Examples that a checkpoint has learned by heart: their loss has vanished, and with it their gradient and influence."""

from dataclasses import dataclass

import polars as pl

from lorif_assets.lake.attribution_tables import CHECKPOINTS, GRADIENT_FACTORS
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake

VANISHED_LOSS = 0.05
"""Nats per token below which an example is known by heart: each of its tokens gets 95 %."""
VANISHED_SHARE = 0.1
"""Share of its loss at the earliest checkpoint, or without one of the median, below which an example's loss has vanished."""
NOTEWORTHY_SHARE = 0.05
"""Share of the examples from which on it is said."""

_EXAMPLE = ["shard", "shard_hash", "example_id"]

REMEDY = (
    "plain influence hardly sees these examples here: look at the relative ranking, at an earlier checkpoint, or at the base "
    "model (step 0), where they still had a gradient; or average over such checkpoints (`recipe.averaged_checkpoints`)"
)


@dataclass(frozen=True)
class LearnedByHeart:
    """How many of a checkpoint's examples are learned by heart; `earliest` is the checkpoint that losses are compared with."""

    checkpoint: str
    learned: int
    examples: int
    earliest: str | None

    @property
    def share(self) -> float:
        """Share of the examples, 0 to 1."""
        return self.learned / self.examples if self.examples else 0.0

    @property
    def is_noteworthy(self) -> bool:
        """Whether they are enough to be spoken of."""
        return self.share >= NOTEWORTHY_SHARE

    @property
    def words(self) -> str:
        """The finding in words."""
        compared = f"that at {self.earliest!r}" if self.earliest else "the median"
        return (
            f"{self.checkpoint}: {self.learned:,} of {self.examples:,} examples ({self.share:.0%}) are learned by heart; their "
            f"loss per token is below {VANISHED_LOSS:g} nats, or {VANISHED_SHARE:.0%} of {compared}"
        )


def learned_by_heart(lake: Lake, checkpoint: str | None = None) -> list[LearnedByHeart]:
    """Return the finding at every checkpoint that has factors, in order of step, then name, or at one of them.

    An example's loss per token has vanished where it is below `VANISHED_LOSS`, or below `VANISHED_SHARE` of what it was at
    the earliest of these checkpoints. At the earliest one itself, and for examples that it lacks, the median of the
    checkpoint's losses takes the place of that.
    """
    steps = dict(lake.read(CHECKPOINTS, ["checkpoint", "step"]).iter_rows())
    names = sorted(
        set(file_constants(lake, GRADIENT_FACTORS, ["checkpoint"])["checkpoint"]),
        key=lambda name: (-1 if steps.get(name) is None else steps[name], name),
    )
    chosen = names if checkpoint is None else [name for name in names if name == checkpoint]
    earliest = _losses(lake, names[0]).rename({"per_token": "first"}) if chosen else None
    return [_finding(name, _losses(lake, name), None if name == names[0] else earliest, names[0]) for name in chosen]


def _losses(lake: Lake, checkpoint: str) -> pl.DataFrame:
    """Return the loss per token of each example of a checkpoint."""
    rows = lake.read(GRADIENT_FACTORS, [*_EXAMPLE, "loss", "n_target_tokens"], checkpoint=checkpoint)
    return rows.select(*_EXAMPLE, per_token=pl.col("loss") / pl.col("n_target_tokens").clip(lower_bound=1))


def _finding(name: str, losses: pl.DataFrame, first: pl.DataFrame | None, earliest: str) -> LearnedByHeart:
    if first is None:
        compared = losses.with_columns(first=pl.lit(None, pl.Float32))
    else:
        compared = losses.join(first, on=_EXAMPLE, how="left")
    reference = pl.coalesce("first", pl.col("per_token").median())
    vanished = (pl.col("per_token") < VANISHED_LOSS) | (pl.col("per_token") < VANISHED_SHARE * reference)
    learned = int(compared.select(vanished.sum()).item())
    return LearnedByHeart(name, learned, losses.height, None if first is None else earliest)
