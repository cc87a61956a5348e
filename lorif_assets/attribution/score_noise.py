"""How much of stored scores is noise: pairs scored again by whole gradients (docs/method.md: shrunk scores for sums)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
from lorif_assets.data.tokenization import n_tokens
from lorif_assets.errors import LorifError
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from lorif_assets.data.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner

_EXAMPLES = 128
_QUERIES = 16
# By EK-FAC, fitted to the usual sample: another solver, or another size, would only be another measure of the same noise.
_EXACT = ExactScoreSettings()


@dataclass(frozen=True)
class ScoreNoise:
    """Measures the noise of a checkpoint's stored scores; EK-FAC is fitted to whole gradients once for all query sets.

    Scores are those of this checkpoint alone, also where stored ones are averaged over several.
    """

    checkpoint: AttributedCheckpoint
    batch: BatchSettings

    def share(self, queries: "Sequence[TokenizedExample]") -> float:
        """Return the share of the scores' mean square that is noise, on up to 16 of the queries and 128 examples.

        Both are drawn by the recipe's seed. It takes a pass over these examples, and the fit (none where the recipe whitens
        and projects nothing).

        Raises:
            LorifError: EK-FAC cannot be fitted, or all sampled scores are zero.
            UnsoundQueryError: a query's loss or gradient is not finite.
        """
        from lorif_assets.mathematics.scores.shrinkage import noise_share

        checkpoint, stored = self.checkpoint, self.checkpoint.stored.factors
        name = checkpoint.stored.record.name
        rng = np.random.default_rng(checkpoint.model.recipe.seed)
        sampled = [queries[at] for at in sorted(rng.permutation(len(queries))[:_QUERIES])]
        drawn = sorted(rng.permutation(stored.n_examples)[:_EXAMPLES].tolist())
        pairs = {at: (shard, example_id) for at, (example_id, shard) in stored.example_ids(drawn).items()}
        by_pair = listed_examples(checkpoint.stored.lake, checkpoint.model, pairs.values())
        positions = [at for at in drawn if pairs[at] in by_pair]
        examples = [by_pair[pairs[at]] for at in positions]
        asked = preconditioned_queries(checkpoint, sampled, self.batch)
        of_codes, _ = scores_at(stored, asked, positions, checkpoint.device)
        with Progress(f"{name} exact scores", n_tokens(examples), "tok") as progress:
            exact = exact_scores(self._whole, self._inverses, sampled, examples, _EXACT, self.batch, progress)
        try:
            return noise_share(of_codes.scores.numpy(), exact.scores.numpy())
        except ValueError as error:
            raise LorifError(f"scores at {name!r} cannot be shrunk: {error}") from error

    @cached_property
    def _whole(self) -> WholeGradients:
        return WholeGradients.of(self.checkpoint, _EXACT)

    @cached_property
    def _inverses(self) -> "dict[str, KroneckerPreconditioner]":
        label = f"{self.checkpoint.stored.record.name} EK-FAC of whole gradients"
        with Progress(label, self._whole.fit_tokens, "tok") as progress:
            return self._whole.inverses(self.batch, progress)


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
