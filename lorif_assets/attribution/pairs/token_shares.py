"""What each target token of a pair of query and example contributes to the pair's influence (docs/method.md: scores by token).

Scores are those of uncompressed gradients, at the recipe's layers and projections: score = <H^-1 G_q, G_i>. G_i is the sum
of its target tokens' gradients, and so is G_q, so the score is a sum over the tokens of either side.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.queries.precondition_queries import InverseOf
from lorif_assets.attribution.queries.query_gradients import stream_query_gradients
from lorif_assets.config.sections import BatchSettings

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from lorif_assets.data.tokens.tokenization import Term, TokenizedExample
    from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner

    _Term = tuple[Term, Float[Tensor, "1 S H"] | None]
    """A term of a query, and the gradient of its loss by its last hidden states, where the model can be cut there."""


@dataclass(frozen=True)
class TokenShares:
    """The influence of one example on one query, and each token's share of it; 0 at tokens without loss.

    Either side's shares sum to the score, beyond rounding.
    """

    score: float
    """Of uncompressed gradients."""
    of_example: "Float[Tensor, ' T']"
    of_query: "tuple[Float[Tensor, ' S'], ...]"
    """By term of what the query asks about; none of a scalar, which is no sum over tokens."""


def token_shares(
    attributed: AttributedModel,
    inverse: InverseOf,
    query: "TokenizedExample",
    examples: "Sequence[TokenizedExample]",
    batch: BatchSettings,
) -> Iterator[tuple[int, TokenShares]]:
    """Yield, batch by batch, positions among the examples and their shares for one query.

    Each batch of examples takes a forward and a backward pass, and a pass with forward derivatives along the query's
    direction; the query takes one along those of the examples.

    Args:
        attributed: the model.
        inverse: of each layer's curvature.
        query: tokenized.
        examples: tokenized.
        batch: budgets of memory; the gradients of a batch's examples are held at once.

    Raises:
        LayerError: an operation of the model has no forward-mode derivative.
    """
    shapes = attributed.record.layer_shapes
    inverses = {layer: inverse(layer) for layer in shapes}
    gradient, terms = _gradient_and_terms(attributed, query, batch)
    direction = {
        layer: inverses[layer].inverse(gradient[layer].flatten(1)).view(1, *shape) for layer, shape in shapes.items()
    }
    at_once = max(1, batch.gradient_numbers // sum(d1 * d2 for d1, d2 in shapes.values()))
    for of_batch in attributed.batches(examples, batch.tokens):
        for first in range(0, len(of_batch), at_once):
            positions = of_batch[first : first + at_once]
            yield from _shares(attributed, inverses, terms, direction, examples, positions, batch.tokens)


def _gradient_and_terms(
    attributed: AttributedModel, query: "TokenizedExample", batch: BatchSettings
) -> "tuple[dict[str, Float[Tensor, '1 d1 d2']], list[_Term]]":
    """Return the gradient of what a query asks about, and its terms; a scalar has none that is a sum over tokens."""
    gradient: dict[str, Tensor] = {}
    if query.scalar is not None:
        stream_query_gradients(attributed, [query], lambda layer, _, found: gradient.update({layer: found}), batch)
        return gradient, []
    terms: list[_Term] = []
    with attributed.collector() as collector:
        for term in query.terms:
            found = collector.collect(attributed.batch([term.tokens], [0]))
            for layer, of_term in found.gradients.items():
                added = term.weight * of_term
                gradient[layer] = gradient[layer] + added if layer in gradient else added
            terms.append((term, found.hidden))
    return gradient, terms


def _shares(
    attributed: AttributedModel,
    inverses: "Mapping[str, LayerPreconditioner]",
    terms: "Sequence[_Term]",
    direction: "Mapping[str, Tensor]",
    examples: "Sequence[TokenizedExample]",
    positions: Sequence[int],
    max_tokens: int,
) -> Iterator[tuple[int, TokenShares]]:
    import torch

    tokens, n = attributed.batch(examples, positions), len(positions)
    with attributed.collector() as collector:
        found = collector.collect(tokens)
    gradients = found.gradients
    products = [(gradients[layer].double() * of_layer).sum((1, 2)) for layer, of_layer in direction.items()]
    scores = torch.stack(products).sum(0)
    of_examples = attributed.directional_passes.slopes(tokens, direction, found.hidden).float().cpu()
    backwards = {
        layer: inverses[layer].inverse(of_layer.flatten(1)).view(of_layer.shape)
        for layer, of_layer in gradients.items()
    }
    of_terms = [_of_term(attributed, *term, backwards, n, max_tokens) for term in terms]
    for row, position in enumerate(positions):
        length = len(examples[position].input_ids)
        of_query = tuple(of_term[row] for of_term in of_terms)
        yield position, TokenShares(float(scores[row]), of_examples[row, :length], of_query)


def _of_term(
    attributed: AttributedModel,
    term: "Term",
    hidden: "Float[Tensor, '1 S H'] | None",
    directions: "Mapping[str, Tensor]",
    n: int,
    max_tokens: int,
) -> "Float[Tensor, 'n S']":
    """Return the shares of a term's tokens along the directions of n examples."""
    import torch

    copies, found = [term.tokens] * n, torch.empty(n, len(term.tokens.input_ids))
    for rows in attributed.batches(copies, max_tokens):
        some = {layer: of_layer[rows] for layer, of_layer in directions.items()}
        of_copies = None if hidden is None else hidden.expand(len(rows), -1, -1)
        slopes = attributed.directional_passes.slopes(attributed.batch(copies, rows), some, of_copies)
        found[rows] = term.weight * slopes.float().cpu()
    return found
