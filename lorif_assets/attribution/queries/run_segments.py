"""Queries for the segments of one training run: preconditioned as SOURCE does it, at the run's end alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.queries.precondition_queries import PreconditionedQueries, precondition
from lorif_assets.config.sections import BatchSettings
from lorif_assets.errors import MismatchError

if TYPE_CHECKING:
    from lorif_assets.data.tokens.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.source import Segment, SegmentPreconditioner


def segment_queries(
    checkpoint: LoadedCheckpoint,
    run: Sequence[StoredCheckpoint],
    times: Sequence[float],
    at: int,
    queries: "Sequence[TokenizedExample]",
    batch: BatchSettings,
) -> PreconditionedQueries:
    """Return queries that score the factors of one of a run's checkpoints; losses and gradients are those at the last one.

    Args:
        checkpoint: the last one, with its model.
        run: the checkpoints of the run, in its order.
        times: how long each one's segment trains, their mean 1.
        at: which one's factors are to be scored.
        queries: tokenized.
        batch: sizes of batches of queries.

    Raises:
        MismatchError: layers of the checkpoints were projected to different widths.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    last = checkpoint.stored
    for one in run:
        if one.factors.projection != last.factors.projection:
            raise MismatchError(
                f"{one.record.name!r} and {last.record.name!r} are no segments of one run for SOURCE: their layers were "
                'projected otherwise. Set `recipe.max_width` to a number, or `recipe.checkpoint_weights` to "scaled"'
            )
    unit = last.recipe.source_time

    def segment(layer: str, index: int) -> "Segment":
        from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner
        from lorif_assets.mathematics.curvature.source import Segment

        loaded = run[index].preconditioners.load(layer, checkpoint.device)
        if not isinstance(loaded, KroneckerPreconditioner):
            raise TypeError(f"a segment needs eigenvalues along bases, found {type(loaded).__name__}")
        return Segment.of(loaded, unit * times[index])

    def inverse(layer: str) -> "SegmentPreconditioner":
        from lorif_assets.mathematics.curvature.source import SegmentPreconditioner

        return SegmentPreconditioner(segment(layer, at), [segment(layer, index) for index in range(at + 1, len(run))])

    return precondition(checkpoint.model, queries, inverse, batch)
