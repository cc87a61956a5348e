"""Gradients of the tracked experts of one fused weight, those of all experts in few products."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.gradients.contraction import Contraction
from lorif_assets.mathematics.gradients.experts import ExampleRows
from lorif_assets.mathematics.gradients.projection import LayerProjection, projected
from lorif_assets.mathematics.matrix_products import product, put_product

_AT_ONCE = 1 << 20
"""Numbers of the experts' gradients that are made together: more save no calls worth having."""


@dataclass(frozen=True, eq=False)
class RoutedCall:
    """What the experts of a weight multiplied in one call: their rows, projected or not, and the gradients of their outputs.

    Rows of experts that are not tracked are zero.
    """

    rows: ExampleRows
    x: Float[Tensor, "S d1"]
    dy: Float[Tensor, "S d2"]

    @classmethod
    def joined(cls, calls: "Sequence[RoutedCall]") -> "RoutedCall":
        """Return several calls over the same examples as one."""
        if len(calls) == 1:
            return calls[0]
        first = calls[0].rows
        experts, examples, is_token = (
            torch.cat([getattr(call.rows, side) for call in calls]) for side in ("experts", "examples", "is_token")
        )
        order = (experts * first.n_examples + examples).argsort(stable=True)
        rows = ExampleRows.of(experts[order], examples[order], is_token[order], len(first.sizes), first.n_examples)
        return cls(rows, torch.cat([call.x for call in calls])[order], torch.cat([call.dy for call in calls])[order])


@dataclass(frozen=True)
class ExpertLayers:
    """The tracked experts of a fused weight, all of equal widths: their projections by the expert's number."""

    projections: dict[int, LayerProjection]
    dtype: torch.dtype
    """Of products and gradients."""
    device: torch.device

    @property
    def names(self) -> list[str]:
        """The experts' layers."""
        return [projection.layer.name for projection in self.projections.values()]

    def inputs(self, x: Float[Tensor, "S I"], rows: ExampleRows, order: Contraction) -> Float[Tensor, "S d1"]:
        """Return the experts' inputs, projected if the order says so; in a tensor of their own."""
        matrices = {expert: p.p_in for expert, p in self.projections.items()}
        # The model may later write into its own tensor.
        return self._projected(x, rows.sizes, matrices) if order.inputs and self._one.p_in is not None else x.clone()

    def outputs(self, dy: Float[Tensor, "S O"], rows: ExampleRows, order: Contraction) -> Float[Tensor, "S d2"]:
        """Return the gradients of the experts' outputs, projected if the order says so."""
        matrices = {expert: p.p_out for expert, p in self.projections.items()}
        is_projected = order.outputs and self._one.p_out is not None
        return self._projected(dy, rows.sizes, matrices) if is_projected else dy.to(self.dtype)

    def tokens(self, calls: Sequence[RoutedCall]) -> Iterator[tuple[str, list[tuple[Tensor, Tensor]]]]:
        """Yield for each expert the tokens that were routed to it, [1, n, d1] and [1, n, d2] of each call with any."""
        sides = [(call.rows.by_expert(call.x), call.rows.by_expert(call.dy)) for call in calls]
        for expert, projection in self.projections.items():
            pairs = [(x[expert].unsqueeze(0), dy[expert].unsqueeze(0)) for x, dy in sides if len(x[expert])]
            yield projection.layer.name, pairs

    def gradients(
        self, calls: Sequence[RoutedCall], n_examples: int, order: Contraction, max_numbers: int
    ) -> Iterator[tuple[str, slice, Float[Tensor, "b d1 d2"]]]:
        """Yield each expert's gradients, some examples at a time.

        Args:
            calls: of the experts.
            n_examples: of the batch.
            order: which sides of the calls are projected.
            max_numbers: numbers that are made at once; an example of one expert with more is made at once nonetheless.
        """
        reached: set[int] = set()
        if calls:
            call = RoutedCall.joined(calls)
            reached = {expert for block in call.rows.blocks for expert in block.experts}
            yield from self._of_reached(call, order, max_numbers)
        one = self._one
        step = max(1, max_numbers // (one.d1 * one.d2))
        for expert, projection in self.projections.items():
            if expert not in reached:
                for start in range(0, n_examples, step):
                    rows = slice(start, min(start + step, n_examples))
                    shape = rows.stop - start, one.d1, one.d2
                    yield projection.layer.name, rows, torch.zeros(shape, dtype=self.dtype, device=self.device)

    def _of_reached(
        self, call: RoutedCall, order: Contraction, max_numbers: int
    ) -> Iterator[tuple[str, slice, Float[Tensor, "b d1 d2"]]]:
        """Yield the gradients of experts with a token, those of a block of experts together."""
        rows, x, dy = call.rows, call.rows.filled(call.x.to(self.dtype)), call.rows.filled(call.dy)
        per_example = max(self._one.d1 * self._one.d2, x.shape[1] * dy.shape[1])
        step = min(rows.n_examples, max(1, max_numbers // per_example))
        at_once = max(1, min(max_numbers, _AT_ONCE) // (step * per_example))
        for block in rows.blocks:
            of_x, of_dy = rows.of_block(x, block), rows.of_block(dy, block)
            tracked = [place for place, expert in enumerate(block.experts) if expert in self.projections]
            if len(tracked) < len(block.experts):
                of_x, of_dy = of_x[tracked], of_dy[tracked]
            for first in range(0, len(tracked), at_once):
                some = slice(first, first + at_once)
                of_some = [self.projections[block.experts[place]] for place in tracked[some]]
                for start in range(0, rows.n_examples, step):
                    chosen = slice(start, min(start + step, rows.n_examples))
                    pairs = (side[some, chosen].flatten(0, 1) for side in (of_x.mT, of_dy))
                    sums = product(*pairs).unflatten(0, (len(of_some), -1))
                    for projection, total in zip(of_some, sums, strict=True):
                        yield projection.layer.name, chosen, _projected_after(total, projection, order)

    @property
    def _one(self) -> LayerProjection:
        return next(iter(self.projections.values()))

    def _projected(
        self, rows: Float[Tensor, "S w"], sizes: Sequence[int], matrices: Mapping[int, Tensor | None]
    ) -> Float[Tensor, "S d"]:
        width = next(p.shape[1] for p in matrices.values() if p is not None)
        found = rows.new_zeros(len(rows), width, dtype=self.dtype)
        for expert, (part, place) in enumerate(zip(rows.split(list(sizes)), found.split(list(sizes)), strict=True)):
            p = matrices.get(expert)
            if p is None or not sizes[expert]:
                continue
            if part.dtype == p.dtype == self.dtype:
                put_product(place, part, p)
            else:
                place.copy_(projected(part, p))
        return found


def _projected_after(sums: Float[Tensor, "b i o"], projection: LayerProjection, order: Contraction) -> Tensor:
    """Return sums over tokens, projected on the sides that the order leaves for then."""
    rows = sums if order.outputs or projection.p_out is None else projected(sums, projection.p_out)
    return rows if order.inputs or projection.p_in is None else projected(rows.mT, projection.p_in).mT
