"""Scores of some examples from whole gradients: neither projected nor compressed (docs/method.md: exact re-ranking)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.fitting.whole_gradients import WholeCurvature, WholeGradients
from lorif_assets.attribution.queries.query_gradients import stream_query_gradients
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import n_tokens
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from lorif_assets.data.tokens.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.conjugate_gradients import Vector
    from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner

# Logits of all target tokens of a batch are held for a product with the Gauss-Newton matrix: 512 MiB in FP32.
_HELD_LOGITS = 1 << 27


@dataclass(frozen=True)
class ExactScores:
    """Scores of queries and examples from whole gradients, and each example's influence on itself, g^T H^-1 g, by EK-FAC."""

    scores: "Float[Tensor, 'Q n']"
    self_influences: "Float[Tensor, ' n']"


def exact_scores(
    curvature: WholeCurvature,
    queries: "Sequence[TokenizedExample]",
    examples: "Sequence[TokenizedExample]",
    settings: ExactScoreSettings,
    batch: BatchSettings,
    progress: Progress,
) -> ExactScores:
    """Return the scores of all pairs of some queries and examples, and the examples' own, in FP64 on the CPU.

    Args:
        curvature: gives whole gradients, and the inverse of each layer.
        queries: tokenized; their solutions are held at once.
        examples: tokenized.
        settings: how queries are solved for.
        batch: budgets of memory.
        progress: advances by tokens of passes.

    Raises:
        LayerError: conjugate gradients are asked for, and an operation of the model has no forward-mode derivative.
        UnsoundQueryError: a scalar fails.
    """
    import torch

    attributed, inverses = curvature.attributed, curvature.inverses
    solutions = [_solution(curvature, query, settings, batch, progress) for query in queries]
    directions = {layer: torch.stack([one[layer].flatten() for one in solutions]) for layer in inverses}
    scores = torch.zeros(len(queries), len(examples), dtype=torch.float64)
    own = torch.zeros(len(examples), dtype=torch.float64)
    with attributed.collector() as collector:
        for positions in attributed.batches(examples, batch.tokens):

            def sink(layer: str, rows: slice, found: "Tensor", at: Sequence[int] = positions) -> None:
                gradients, places = found.flatten(1), list(at[rows])
                scores[:, places] += (directions[layer] @ gradients.mT).double().cpu()
                own[places] += torch.linalg.vecdot(inverses[layer].inverse(gradients), gradients).double().cpu()

            collector.stream(attributed.batch(examples, positions), sink, batch.gradient_numbers)
            progress.advance(n_tokens(examples[position] for position in positions))
    # Only rounding makes it negative.
    return ExactScores(scores, own.clamp_(min=0.0))


def solver_tokens(whole: WholeGradients, n_queries: int, settings: ExactScoreSettings) -> int:
    """Return the tokens of the passes that solving for queries takes besides their own gradients."""
    if settings.query_solver != "cg":
        return 0
    return 2 * n_queries * settings.cg_rounds * n_tokens(whole.sample[: settings.cg_examples])


def _solution(
    curvature: WholeCurvature,
    query: "TokenizedExample",
    settings: ExactScoreSettings,
    batch: BatchSettings,
    progress: Progress,
) -> "Vector":
    """Return H^-1 g of a query."""
    from lorif_assets.mathematics.curvature.conjugate_gradients import conjugate_gradients

    gradient: dict[str, Tensor] = {}

    def sink(layer: str, _places: list[int], found: "Tensor") -> None:
        gradient[layer] = found[0]

    stream_query_gradients(curvature.attributed, [query], sink, batch)
    precondition = partial(_preconditioned, curvature.inverses)
    if settings.query_solver != "cg":
        return precondition(gradient)
    sample = curvature.sample[: settings.cg_examples]
    product = partial(_damped_product, curvature.attributed, curvature.inverses, sample, batch, progress)
    return conjugate_gradients(product, precondition, gradient, settings.cg_rounds)


def _preconditioned(inverses: "Mapping[str, KroneckerPreconditioner]", vector: "Vector") -> "dict[str, Tensor]":
    return {layer: inverses[layer].inverse(v.flatten().unsqueeze(0)).view(v.shape) for layer, v in vector.items()}


def _damped_product(
    attributed: AttributedModel,
    inverses: "Mapping[str, KroneckerPreconditioner]",
    sample: "Sequence[TokenizedExample]",
    batch: BatchSettings,
    progress: Progress,
    vector: "Vector",
) -> "dict[str, Tensor]":
    """Return the product with the mean Gauss-Newton matrix of the sample's examples, damped as the inverses are."""
    from lorif_assets.mathematics.curvature.gauss_newton import gauss_newton_product

    products = {layer: inverses[layer].absolute_damping * v for layer, v in vector.items()}
    vocabulary = attributed.model.config.get_text_config().vocab_size
    max_tokens = max(1, min(batch.tokens, _HELD_LOGITS // vocabulary))
    with attributed.collector() as collector:
        for positions in attributed.batches(sample, max_tokens):
            tokens = attributed.batch(sample, positions)
            found = gauss_newton_product(
                attributed.directional_passes, collector, tokens, vector, batch.gradient_numbers
            )
            for layer, of_batch in found.items():
                products[layer] = products[layer] + of_batch / len(sample)
            progress.advance(2 * n_tokens(sample[position] for position in positions))
    return products
