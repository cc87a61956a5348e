"""How much of stored scores is noise: pairs scored again by gradients that are hardly projected, and not compressed.

docs/method.md: shrunk scores for sums.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.exact.exact_influence import exact_scores
from lorif_assets.attribution.fitting.whole_gradients import WholeGradients, inverse_bytes
from lorif_assets.attribution.pairs.listed_examples import listed_examples
from lorif_assets.attribution.queries.precondition_queries import preconditioned_queries
from lorif_assets.attribution.recipes.gradient_room import layer_groups
from lorif_assets.attribution.scores.score_positions import scores_at
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import n_tokens
from lorif_assets.errors import UnsoundQueryError
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.free_memory import free_memory
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from jaxtyping import Float

    from lorif_assets.data.tokens.tokenization import TokenizedExample

_EXAMPLES = 128
_QUERIES = 16
# By EK-FAC, fitted to the usual sample: another solver, or another size, would only be another measure of the same noise.
_EXACT = ExactScoreSettings()
WIDEST = 2_048
"""Sides are projected to it where they are wider: next to what the recipe's widths and codes add, that adds little."""
_SHARE_OF_MEMORY = 2
# A query's solution, and the same stacked with the others.
_COPIES = 2


@dataclass(frozen=True)
class _Pairs:
    """The sampled queries of a set, and their stored scores with the sampled examples."""

    queries: "Sequence[TokenizedExample]"
    stored: "Float[np.ndarray, 'Q n']"


def noise_shares(
    checkpoint: AttributedCheckpoint,
    query_sets: "Mapping[str, Sequence[TokenizedExample]]",
    batch: BatchSettings,
    widest: int = WIDEST,
) -> dict[str, float]:
    """Return the share of the mean square of each query set's stored scores that is noise, on a sample of pairs.

    Up to 16 queries of a set and 128 examples are drawn by the recipe's seed. As many layers are measured at a time as half
    of the free memory holds, each time by passes over these and over the sample that EK-FAC is fitted to (none where
    the recipe whitens and projects nothing). Scores are those of this checkpoint alone, also where stored ones are averaged.
    A set without a query, or of which a query's loss or gradient is not finite, is left out: it has no scores.

    Args:
        checkpoint: its factors are the stored ones.
        query_sets: tokenized queries, by set.
        batch: budgets of memory.
        widest: sides that are wider are projected to it, or to what the recipe leaves of them if that is more.

    Raises:
        LorifError: EK-FAC cannot be fitted.
    """
    from lorif_assets.mathematics.scores.shrinkage import noise_share

    positions, examples = _drawn_examples(checkpoint)
    rng = np.random.default_rng(checkpoint.model.recipe.seed)
    sampled = {}
    for query_set, queries in query_sets.items():
        if not queries:
            continue
        chosen = [queries[at] for at in sorted(rng.permutation(len(queries))[:_QUERIES])]
        try:
            asked = preconditioned_queries(checkpoint, chosen, batch)
        except UnsoundQueryError:
            continue
        of_codes, _ = scores_at(checkpoint.stored.factors, asked, positions, checkpoint.device)
        sampled[query_set] = _Pairs(chosen, of_codes.scores.numpy())
    if not sampled:
        return {}
    exact = {query_set: np.zeros(pairs.stored.shape) for query_set, pairs in sampled.items()}
    whole = WholeGradients.of(checkpoint, _EXACT, widest)
    parts = list(_parts(whole))
    tokens = whole.fit_tokens + len(sampled) * n_tokens(examples)
    with Progress(f"{checkpoint.stored.record.name} noise of scores", len(parts) * tokens, "tok") as progress:
        for part in parts:
            curvature = part.curvature(batch, progress)
            for query_set, pairs in sampled.items():
                found = exact_scores(curvature, pairs.queries, examples, _EXACT, batch, progress)
                exact[query_set] += found.scores.numpy()
    return {query_set: noise_share(pairs.stored, exact[query_set]) for query_set, pairs in sampled.items()}


def _drawn_examples(checkpoint: AttributedCheckpoint) -> "tuple[list[int], list[TokenizedExample]]":
    """Return positions of up to 128 stored examples, and these."""
    stored = checkpoint.stored.factors
    rng = np.random.default_rng(checkpoint.model.recipe.seed)
    drawn = sorted(rng.permutation(stored.n_examples)[:_EXAMPLES].tolist())
    pairs = {at: (shard, example_id) for at, (example_id, shard) in stored.example_ids(drawn).items()}
    by_pair = listed_examples(checkpoint.stored.lake, checkpoint.model, pairs.values())
    positions = [at for at in drawn if pairs[at] in by_pair]
    return positions, [by_pair[pairs[at]] for at in positions]


def _parts(whole: WholeGradients) -> Iterator[WholeGradients]:
    """Yield as many layers at a time as half of the free memory holds inverses and queries' solutions of."""
    of_layers = {
        layer: inverse_bytes([(d1, d2)]) + _COPIES * _QUERIES * 4 * d1 * d2
        for layer, (d1, d2) in whole.attributed.record.layer_shapes.items()
    }
    # Of the device that has them, also where the weights lie on others too.
    room = free_memory(DeviceGroup((whole.attributed.device,))) // _SHARE_OF_MEMORY
    return (whole.of_layers(layers) for layers in layer_groups(of_layers, room))


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
