"""How fast the loss of each target token rises as the tracked weights move along a direction: forward-mode derivatives.

The derivative of a sum of losses along a direction M is <M, gradient>, so the slopes of an example's target tokens along a
preconditioned query are the token's shares of the pair's influence, and sum to it. One forward pass gives them all: each
product x W of a tracked layer carries the tangent x (P_in M P_out^T) beside what its input brings along. No gradient of a
single token is formed (docs/method.md: scores by token).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from lorif_assets.mathematics.gradients.collector import TokenBatch
from lorif_assets.mathematics.gradients.experts import FusedWeight, Routing
from lorif_assets.mathematics.gradients.frozen_model import frozen
from lorif_assets.mathematics.gradients.head import CHUNK_NUMBERS, Head, HeadChunk, decoded, head_chunks, head_of
from lorif_assets.mathematics.gradients.layers import LayerError
from lorif_assets.mathematics.gradients.projection import LayerProjection, projected
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL, next_tokens
from lorif_assets.mathematics.gradients.tracked_products import TrackedProducts, rows_by_example
from lorif_assets.mathematics.matrix_products import product, products_of_frozen_layers

Directions = Mapping[str, Float[Tensor, "B d1 d2"]]
"""By layer, in its projected axes, where each example's weights are moved to; [1, d1, d2] moves those of all alike."""


@dataclass(frozen=True)
class LogitTangents:
    """Logits of some tokens of a batch, and their derivatives along the examples' directions."""

    chunk: HeadChunk
    logits: Float[Tensor, "b t V"]
    tangents: Float[Tensor, "b t V"]


class DirectionalPasses:
    """Forward passes of a causal language model with derivatives along directions of its tracked layers.

    The model's weights stay as they are. Attention is computed by the plain formula, the only one with such derivatives.

    Args:
        model: in any mode; it is in eval mode, and frozen, during a pass.
        projections: of the tracked layers; directions are given in their axes.
        chunk_numbers: logits that are held at a time, where the model can be cut in front of its head.

    Raises:
        LayerError: a projection names a layer that the model does not have, or has in other widths.
    """

    def __init__(
        self, model: nn.Module, projections: Iterable[LayerProjection], chunk_numbers: int = CHUNK_NUMBERS
    ) -> None:
        self._model, self._chunk_numbers = model, chunk_numbers
        self._products = TrackedProducts(model, projections)
        self._halves: dict[str, Tensor] = {}
        self._mask = torch.empty(0, 0, dtype=torch.bool)
        self._examples = slice(0, 0)
        self._moving: Collection[str] = ()

    def slopes(
        self, batch: TokenBatch, directions: Directions, hidden_gradients: Float[Tensor, "B T H"] | None = None
    ) -> Float[Tensor, "B T"]:
        """Return the slope of each target token's loss along its example's direction, in FP32 at least.

        It stands at the token itself, and is 0 at tokens without loss.

        Args:
            batch: the examples, padded on the right.
            directions: of every tracked layer, for each example.
            hidden_gradients: of the batch's losses by the last hidden states, as a collector gives them: a token's loss
                depends on its own hidden state alone, so that these spare the pass through an untracked head.

        Raises:
            LayerError: an operation of the model has no forward-mode derivative.
        """
        head = head_of(self._model)
        if hidden_gradients is not None and head is not None and not any(map(head.holds, directions)):
            slopes = self._slopes_behind_decoder(head, batch, directions, hidden_gradients)
        else:
            slopes = self._slopes_of_logits(batch, directions)
        # Of the token that is predicted, not of the one that predicts it.
        return torch.cat([slopes[:, -1:], slopes[:, :-1]], dim=1)

    def _slopes_of_logits(self, batch: TokenBatch, directions: Directions) -> Float[Tensor, "B T"]:
        targets = next_tokens(batch.labels)
        wide = torch.promote_types(next(self._model.parameters()).dtype, torch.float32)
        slopes = torch.zeros(targets.shape, dtype=wide, device=targets.device)
        for found in self.logit_tangents(batch, directions):
            of_chunk = found.chunk.targets(targets).to(found.logits.device)
            ignored = of_chunk == IGNORED_LABEL
            at = of_chunk.masked_fill(ignored, 0).unsqueeze(2)
            chances, tangents = torch.softmax(found.logits, dim=2, dtype=wide), found.tangents.to(wide)
            expected = torch.einsum("btv,btv->bt", chances, tangents)
            found.chunk.put(slopes, (expected - tangents.gather(2, at).squeeze(2)).masked_fill(ignored, 0.0))
        return slopes

    def _slopes_behind_decoder(
        self, head: Head, batch: TokenBatch, directions: Directions, hidden_gradients: Float[Tensor, "B T H"]
    ) -> Float[Tensor, "B T"]:
        with self._along(directions), self._of(slice(0, len(batch.input_ids)), batch.attention_mask, self._halves):
            _, tangents = _parts(decoded(self._model, head, batch.model_inputs).hidden)
        wide = torch.promote_types(tangents.dtype, torch.float32)
        slopes = torch.einsum("bth,bth->bt", tangents.to(wide), hidden_gradients.to(tangents.device, wide))
        return slopes.to(batch.input_ids.device)

    def logit_tangents(self, batch: TokenBatch, directions: Directions) -> Iterator[LogitTangents]:
        """Yield the logits of the tokens that predict a target and their derivatives, chunk by chunk.

        Raises:
            LayerError: an operation of the model has no forward-mode derivative.
        """
        needed = next_tokens(batch.labels) != IGNORED_LABEL
        # Found out before products are followed, by a trial run.
        head = head_of(self._model)
        with self._along(directions):
            yield from self._passes(head, batch.model_inputs, batch.attention_mask, needed)

    @contextmanager
    def _along(self, directions: Directions) -> Iterator[None]:
        """Let the model's passes carry derivatives along directions, until the context is left."""
        self._halves = {layer: self._half(layer, direction) for layer, direction in directions.items()}
        try:
            with (
                frozen(self._model),
                torch.no_grad(),
                sdpa_kernel(SDPBackend.MATH),
                forward_ad.dual_level(),
                self._products.followed(self._add_tangent, self._add_routed_tangents),
            ):
                yield
        except (NotImplementedError, RuntimeError) as error:
            if "forward AD" not in str(error) and "jvp" not in str(error):
                raise
            raise LayerError(
                f"{type(self._model).__name__} cannot be differentiated forwards, which scores by token take: {error}"
            ) from error
        finally:
            self._halves = {}

    def _passes(
        self, head: Head | None, inputs: dict[str, Any], mask: Bool[Tensor, "B T"], needed: Bool[Tensor, "B T"]
    ) -> Iterator[LogitTangents]:
        everyone = slice(0, len(mask))
        if head is None:
            with self._of(everyone, mask, self._halves):
                logits = self._model(**inputs).logits
            positions = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
            yield LogitTangents(HeadChunk(everyone, positions, needed, completes_rows=True), *_parts(logits))
            return
        # The head runs on a single token meanwhile, whose logits nobody looks at.
        with self._of(everyone, mask, {layer for layer in self._halves if not head.holds(layer)}):
            behind = decoded(self._model, head, inputs)
        for chunk in head_chunks(needed.to(behind.hidden.device), max(1, self._chunk_numbers // head.vocabulary)):
            with self._of(chunk.rows, chunk.is_token, self._halves):
                logits = behind.logits(chunk.of(behind.hidden))
            yield LogitTangents(chunk, *_parts(logits))

    @contextmanager
    def _of(self, examples: slice, mask: Bool[Tensor, "b t"], layers: Collection[str]) -> Iterator[None]:
        """Let products be those of some examples' tokens in some layers, until the context is left."""
        self._examples, self._mask, self._moving = examples, mask, layers
        with products_of_frozen_layers(self._model), self._products.in_forward_pass(self._add_tangent):
            yield

    def _half(self, layer: str, direction: Float[Tensor, "B d1 d2"]) -> Float[Tensor, "B d1 O"]:
        """Return M P_out^T."""
        projection, dtype = self._products.projections[layer], self._products.types[layer]
        p_out = projection.p_out
        if p_out is None:
            return direction.to(dtype)
        # An accelerator keeps the bare signs.
        whole = p_out.to(dtype) * p_out.shape[1] ** -0.5 if p_out.dtype == torch.bfloat16 else p_out
        return product(direction.to(whole), whole.mT)

    def _tangent(self, layer: str, x: Float[Tensor, "b t I"], half: Float[Tensor, "B d1 O"]) -> Float[Tensor, "b t O"]:
        projection = self._products.projections[layer]
        narrow = x.to(half.device, half.dtype)
        if projection.p_in is not None:
            narrow = projected(narrow, projection.p_in)
        narrow = narrow.to(half.dtype)
        return product(narrow, half[0]) if len(half) == 1 else product(narrow, half[self._examples])

    def _add_tangent(self, layer: str, x: Tensor, output: Tensor, is_transposed: bool) -> Tensor | None:
        if layer not in self._moving:
            return None
        rows = forward_ad.unpack_dual(x).primal
        rows = rows_by_example(rows.mT if is_transposed else rows, self._mask, layer)
        added = self._tangent(layer, rows, self._halves[layer]).to(output)
        shaped = added.reshape(output.mT.shape).mT if is_transposed else added.reshape(output.shape)
        return _with_tangent(output, shaped)

    def _add_routed_tangents(
        self, path: str, weight: FusedWeight, routing: Routing, x: Tensor, multiply: Callable[[], Tensor]
    ) -> Tensor:
        layers = self._products.experts.get((path, weight.parameter))
        if layers is None or not any(name in self._moving for name in layers.names):
            return multiply()
        rows = routing.by_example(self._mask)
        output = multiply()
        inputs = rows.filled(forward_ad.unpack_dual(x).primal)
        tangents = inputs.new_zeros(len(inputs), output.shape[1])
        for block in rows.blocks:
            of_block = zip(block.experts, rows.of_block(inputs, block), rows.of_block(tangents, block), strict=True)
            for expert, of_inputs, of_tangents in of_block:
                projection = layers.projections.get(expert)
                if projection is not None and (name := projection.layer.name) in self._moving:
                    of_tangents.copy_(self._tangent(name, of_inputs, self._halves[name]))
        added = rows.rows(tangents).to(output)
        return _with_tangent(output, added)


def _with_tangent(output: Tensor, added: Tensor) -> Tensor:
    """Return the output with a tangent added to its own, if it has one."""
    moved: Tensor = output + forward_ad.make_dual(torch.zeros_like(added), added)
    return moved


def _parts(values: Float[Tensor, "b t w"]) -> tuple[Tensor, Tensor]:
    """Return numbers and their derivatives: zeros where no tracked layer is before them."""
    primal, tangent = forward_ad.unpack_dual(values)
    return primal, torch.zeros_like(primal) if tangent is None else tangent
