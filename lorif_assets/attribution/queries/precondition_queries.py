"""Preconditioning queries: their gradients, and each layer's inverse curvature applied to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.queries.query_gradients import queried_tokens, stream_query_gradients
from lorif_assets.config.sections import BatchSettings
from lorif_assets.errors import UnsoundQueryError
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokens.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner
    from lorif_assets.mathematics.scores.scoring import Queries

InverseOf = Callable[[str], "LayerPreconditioner"]
"""Returns the inverse curvature of a layer."""


@dataclass(frozen=True)
class PreconditionedQueries:
    """Each layer's preconditioned queries, whole or at a rank, and each query's loss (summed, nats).

    `norm_weights` has the weight of each layer in the size of an example (docs/method.md: relative influence).
    `relative_error` is ||M - M~||_F / ||M||_F over all queries and layers: what the rank leaves out; 0 if whole.
    """

    by_layer: "dict[str, Queries]"
    losses: "torch.Tensor"
    norm_weights: dict[str, float]
    relative_error: float

    def to(self, device: "torch.device") -> "PreconditionedQueries":
        """Return the queries on a device; losses stay on the CPU."""
        return replace(self, by_layer={layer: queries.to(device) for layer, queries in self.by_layer.items()})


def preconditioned_queries(
    checkpoint: LoadedCheckpoint, queries: "Sequence[TokenizedExample]", batch: BatchSettings
) -> PreconditionedQueries:
    """Compute the queries' gradients and apply each layer's stored inverse curvature to them.

    Raises:
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    return precondition(checkpoint.model, queries, checkpoint.inverse_of, batch)


def precondition(
    attributed: AttributedModel, queries: "Sequence[TokenizedExample]", inverse: InverseOf, batch: BatchSettings
) -> PreconditionedQueries:
    """Compute the queries' gradients and apply each layer's inverse curvature, from any source, to them.

    Raises:
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    rank = attributed.recipe.query_rank
    with Progress(f"{attributed.record.name} queries", queried_tokens(queries), "tok") as progress:
        if rank is None:
            return _whole_queries(attributed, queries, inverse, batch, progress)
        return _queries_at_a_rank(attributed, queries, inverse, batch, rank, progress)


def _whole_queries(
    attributed: AttributedModel,
    queries: "Sequence[TokenizedExample]",
    inverse: InverseOf,
    batch: BatchSettings,
    progress: Progress,
) -> PreconditionedQueries:
    import torch

    shapes, device = attributed.record.layer_shapes, attributed.device
    # Of an FP64 model gradients have its type, and so have bases that were fitted to it.
    wide = torch.promote_types(attributed.model.dtype, torch.float32)
    dense = {layer: torch.empty(len(queries), d1 * d2, dtype=wide, device=device) for layer, (d1, d2) in shapes.items()}

    def sink(layer: str, places: list[int], gradients: torch.Tensor) -> None:
        dense[layer][places] = gradients.flatten(1).to(dense[layer])

    losses = stream_query_gradients(attributed, queries, sink, batch, by_layer=False, progress=progress)
    sound = losses.isfinite()
    for gradients in dense.values():
        sound &= gradients.isfinite().all(dim=1).cpu()
    _refuse_unsound(attributed, queries, sound)
    norm_weights = {}
    for layer in shapes:
        preconditioner = inverse(layer)
        dense[layer] = _applied(attributed, preconditioner, dense[layer])
        norm_weights[layer] = preconditioner.norm_weight
    return PreconditionedQueries({**dense}, losses, norm_weights, 0.0)


def _queries_at_a_rank(
    attributed: AttributedModel,
    queries: "Sequence[TokenizedExample]",
    inverse: InverseOf,
    batch: BatchSettings,
    rank: int,
    progress: Progress,
) -> PreconditionedQueries:
    """Precondition each layer's gradients and cut their rank in the backward pass; dense ones stay within the budget."""
    import torch

    from lorif_assets.mathematics.factors.low_rank import GradientFactors
    from lorif_assets.mathematics.scores.scoring import low_rank_queries

    device, shapes, n = attributed.device, attributed.record.layer_shapes, len(queries)
    inverses = {layer: inverse(layer) for layer in shapes}
    factors_by_layer = {}
    for layer, (d1, d2) in shapes.items():
        kept = min(rank, d1, d2)
        u, v = torch.empty(n, d1, kept, device=device), torch.empty(n, d2, kept, device=device)
        factors_by_layer[layer] = GradientFactors(u, v)
    sound = torch.ones(n, dtype=torch.bool)
    total, lost = 0.0, 0.0

    def sink(layer: str, places: list[int], gradients: torch.Tensor) -> None:
        nonlocal total, lost
        sound[places] &= gradients.isfinite().all(dim=2).all(dim=1).cpu()
        preconditioned = _applied(attributed, inverses[layer], gradients.nan_to_num_().flatten(1)).view(gradients.shape)
        factors, errors = low_rank_queries(preconditioned, rank)
        factors_by_layer[layer].u[places], factors_by_layer[layer].v[places] = factors.u, factors.v
        total, lost = total + float(preconditioned.double().square().sum()), lost + float(errors.sum())

    losses = stream_query_gradients(attributed, queries, sink, batch, progress=progress)
    _refuse_unsound(attributed, queries, sound & losses.isfinite())
    norm_weights = {layer: preconditioner.norm_weight for layer, preconditioner in inverses.items()}
    return PreconditionedQueries({**factors_by_layer}, losses, norm_weights, (lost / total) ** 0.5 if total else 0.0)


def _applied(
    attributed: AttributedModel, preconditioner: "LayerPreconditioner", gradients: "torch.Tensor"
) -> "torch.Tensor":
    from lorif_assets.mathematics.scores.axis_sizes import for_signs

    applied = preconditioner.apply(gradients)
    return (for_signs(preconditioner, applied) if attributed.recipe.knows_axis_sizes else applied).float()


def _refuse_unsound(attributed: AttributedModel, queries: "Sequence[TokenizedExample]", sound: "torch.Tensor") -> None:
    unsound = [query for query, is_sound in zip(queries, sound.tolist(), strict=True) if not is_sound]
    if unsound:
        what = "loss" if unsound[0].scalar is None else "scalar"
        advice = "are the checkpoint's weights finite?" if what == "loss" else "is the code of the scalar right?"
        raise UnsoundQueryError(
            f"the {what} or a gradient of query {unsound[0].example_id!r} is not finite at checkpoint "
            f"{attributed.record.name!r}, so its scores would mean nothing; {advice}",
            [query.example_id for query in unsound],
        )
