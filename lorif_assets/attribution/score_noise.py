"""How much of the stored scores is noise: sampled pairs scored again by whole gradients (docs/method.md: shrunk sums)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lorif_assets.attribution.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.exact_influence import exact_scores
from lorif_assets.attribution.listed_examples import listed_examples
from lorif_assets.attribution.precondition_queries import preconditioned_queries
from lorif_assets.attribution.score_positions import scores_at
from lorif_assets.attribution.whole_gradients import WholeGradients
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.sections import BatchSettings
from lorif_assets.errors import LorifError
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from lorif_assets.data.tokenization import TokenizedExample

_EXAMPLES = 128
_QUERIES = 16
# By EK-FAC, fitted to the usual sample: another solver, or another size, would only be another measure of the same noise.
_EXACT = ExactScoreSettings()


def measured_noise_share(
    checkpoint: AttributedCheckpoint, queries: "Sequence[TokenizedExample]", batch: BatchSettings
) -> float:
    """Return the share of the stored scores' mean square that is noise, on up to 16 queries and 128 examples.

    Both are drawn by the recipe's seed. Scores are those of this checkpoint alone, also where stored ones are averaged over
    several. It takes a fit of EK-FAC to whole gradients (none where the recipe whitens and projects nothing), and a pass
    over the sampled examples.

    Raises:
        LorifError: EK-FAC cannot be fitted, or all sampled scores are zero.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    from lorif_assets.mathematics.scores.shrinkage import noise_share

    stored, attributed = checkpoint.stored.factors, checkpoint.model
    rng = np.random.default_rng(attributed.recipe.seed)
    sampled = [queries[at] for at in sorted(rng.permutation(len(queries))[:_QUERIES])]
    positions = sorted(rng.permutation(stored.n_examples)[:_EXAMPLES].tolist())
    pairs = {at: (shard, name) for at, (name, shard) in stored.example_ids(positions).items()}
    examples = listed_examples(checkpoint.stored.lake, attributed, pairs.values())
    positions = [at for at in positions if pairs[at] in examples]
    of_codes, _ = scores_at(stored, preconditioned_queries(checkpoint, sampled, batch), positions, checkpoint.device)
    whole = WholeGradients.of(checkpoint, _EXACT)
    with Progress(f"noise of scores at {checkpoint.stored.record.name}", whole.fit_tokens, "tok") as progress:
        inverses = whole.inverses(batch, progress)
        exact = exact_scores(
            whole, inverses, sampled, [examples[pairs[at]] for at in positions], _EXACT, batch, progress
        )
    try:
        return noise_share(of_codes.scores.numpy(), exact.scores.numpy())
    except ValueError as error:
        raise LorifError(f"scores at {checkpoint.stored.record.name!r} cannot be shrunk: {error}") from error


def shrunk_scores(scores: pl.DataFrame, share: float) -> pl.DataFrame:
    """Return scores of every pair with their posterior means in place of `score`, query by query.

    Args:
        scores: query_id, score and any other columns; of each query all examples.
        share: of the mean square that is noise.
    """
    from lorif_assets.mathematics.scores.shrinkage import shrunk

    return pl.concat(
        of_query.with_columns(score=pl.Series(shrunk(of_query["score"].to_numpy()[np.newaxis], share)[0]))
        for of_query in scores.partition_by("query_id", maintain_order=True)
    )
