"""Products with the Gauss-Newton matrix of a causal language model's losses, which is never formed.

H = sum over target tokens of J^T (diag(p) - p p^T) J, where J is the derivative of a token's logits by the tracked weights
and p its softmax: the expected squared gradient under the model's own predictions. H v is a forward pass with derivatives
along v, and a backward pass that begins with (diag(p) - p p^T) J v in the place of the losses' gradient.
"""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.loss_slopes import DirectionalPasses
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL, next_tokens

LayerMatrices = Mapping[str, Float[Tensor, "d1 d2"]]
"""A vector of the tracked weights' space: a matrix for each layer, in its projected axes."""


def gauss_newton_product(
    passes: DirectionalPasses, collector: GradientCollector, batch: TokenBatch, direction: LayerMatrices, numbers: int
) -> dict[str, Float[Tensor, "d1 d2"]]:
    """Return H v, summed over a batch's target tokens.

    The logits of all target tokens are held at once.

    Args:
        passes: of the model, with derivatives along directions.
        collector: of the same layers' gradients, entered; it cuts logits into chunks as `passes` does.
        batch: the examples, padded on the right.
        direction: v, of every tracked layer.
        numbers: numbers of dense gradients that are held at a time.

    Raises:
        LayerError: an operation of the model has no forward-mode derivative.
    """
    curved = _curved_tangents(passes, batch, {layer: v.unsqueeze(0) for layer, v in direction.items()})
    products: dict[str, Tensor] = {}

    def sink(layer: str, _rows: slice, found: Float[Tensor, "b d1 d2"]) -> None:
        total = found.sum(0)
        products[layer] = products[layer] + total if layer in products else total

    # All forward passes come first: the two kinds of passes follow the same products.
    waiting = iter(list(curved))

    def from_curved(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        del targets
        return logits.new_zeros(len(logits)), next(waiting).to(logits)

    collector.stream(batch, sink, numbers, logit_gradients=from_curved)
    return products


def _curved_tangents(
    passes: DirectionalPasses, batch: TokenBatch, directions: Mapping[str, Float[Tensor, "1 d1 d2"]]
) -> Iterator[Float[Tensor, "b t V"]]:
    """Yield (diag(p) - p p^T) J v of each chunk of logits; zeros at tokens that predict no target."""
    targets = next_tokens(batch.labels)
    for found in passes.logit_tangents(batch, directions):
        wide = torch.promote_types(found.logits.dtype, torch.float32)
        chances, tangents = torch.softmax(found.logits, dim=2, dtype=wide), found.tangents.to(wide)
        expected = torch.einsum("btv,btv->bt", chances, tangents).unsqueeze(2)
        ignored = (found.chunk.targets(targets) == IGNORED_LABEL).to(chances.device)
        yield (chances * (tangents - expected)).masked_fill(ignored.unsqueeze(2), 0.0)
