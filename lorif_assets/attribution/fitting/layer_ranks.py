"""How many components of a gradient each layer keeps, measured on a sample (docs/method.md: rank by layer)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lorif_assets.attribution.factors.batch_budget import computed_at_once
from lorif_assets.attribution.factors.sound_examples import not_finite
from lorif_assets.attribution.factors.waiting_gradients import LayerGradients, WaitingGradients, rounds_on
from lorif_assets.attribution.recipes.fitted_recipe import LARGEST_RANK, below_full
from lorif_assets.attribution.recipes.gradient_room import gradient_room
from lorif_assets.config.presets import AUTO
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.tokens.tokenization import TokenizedExample, n_tokens
from lorif_assets.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.checkpoints.model import AttributedModel
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
    from lorif_assets.mathematics.factors.low_rank import GradientFactors
    from lorif_assets.mathematics.gradients.layer_calls import TokenCalls
    from lorif_assets.progress import Progress

RANK_EXAMPLES = 256
"""Sampled examples that ranks by layer are computed from."""


@dataclass(frozen=True)
class LayerRank:
    """How many components a layer keeps, and the share (0 to 1) of its whitened gradients' squared norm in them."""

    rank: int
    kept_energy: float


def layer_ranks(
    attributed: "AttributedModel",
    examples: Sequence[TokenizedExample],
    bases: "Mapping[str, KfacBases]",
    batch: "BatchSettings",
    progress: "Progress",
) -> dict[str, LayerRank]:
    """Return each layer's rank: the recipe's, or one that a byte budget allows, with sampled examples as queries.

    Real queries are not used, because each new query set would then put bases, and with them every factor, out of date.
    """
    from lorif_assets.mathematics.curvature.rank_allocation import kept_energy

    largest = largest_ranks(attributed)
    spectra_with = partial(_whitened_spectra, attributed, examples, bases, batch, largest, progress)
    tokens = batch.tokens_on(attributed.device)
    values, fisher = computed_at_once(attributed, examples, tokens, spectra_with, progress.log)
    ranks = allocated_ranks(attributed, bases, values, fisher)
    return {
        layer: LayerRank(rank, kept_energy(bases[layer], fisher[layer], float(values[layer][:rank].sum())))
        for layer, rank in ranks.items()
    }


def largest_ranks(attributed: "AttributedModel") -> dict[str, int]:
    """Return the rank that each layer has, or with a byte budget could have at most.

    Raises:
        SettingsError: the budget does not pay for one component of every layer.
    """
    recipe, shapes = attributed.fitted_recipe, attributed.record.layer_shapes
    budget = byte_budget(recipe, shapes)
    if budget is None:
        return {layer: min(recipe.rank, *shape) for layer, shape in shapes.items()}
    largest = affordable_ranks(recipe, shapes, budget)
    if attributed.recipe.bytes_per_example != AUTO:
        return largest
    return {layer: min(rank, below_full(shapes[layer])) for layer, rank in largest.items()}


def byte_budget(recipe: Recipe, shapes: Mapping[str, tuple[int, int]]) -> int | None:
    """Return the bytes of an example's factors to spread over the layers, or None if all have the recipe's rank."""
    if recipe.uniform_rank is None and recipe.byte_budget is None:
        sizes = _component_bytes(recipe, shapes)
        return sum(size * min(recipe.rank, *shapes[layer]) for layer, size in sizes.items())
    return recipe.byte_budget


def affordable_ranks(recipe: Recipe, shapes: Mapping[str, tuple[int, int]], budget: int) -> dict[str, int]:
    """Return the rank that each layer would have if it got the whole budget beyond one component per layer.

    Raises:
        SettingsError: the budget does not pay for one component of every layer.
    """
    sizes = _component_bytes(recipe, shapes)
    spare = budget - sum(sizes.values())
    if spare < 0:
        raise SettingsError(
            f"`recipe.bytes_per_example` is {budget}, but one {recipe.factor_dtype} component of each of the "
            f"{len(sizes)} layers takes {sum(sizes.values())} bytes; raise it, choose a smaller `recipe.factor_dtype`, or "
            "take layers out with `recipe.exclude_layers`"
        )
    return {layer: min(*shape, LARGEST_RANK, 1 + spare // sizes[layer]) for layer, shape in shapes.items()}


def allocated_ranks(
    attributed: "AttributedModel",
    bases: "Mapping[str, KfacBases]",
    values: "Mapping[str, torch.Tensor]",
    fisher: "Mapping[str, FisherDiagonal]",
) -> dict[str, int]:
    """Return each layer's rank as far as the byte budget goes; without a budget, the recipe's.

    Args:
        attributed: the model under a recipe.
        bases: by layer.
        values: squared singular values of the whitened gradients of a sample, summed over its examples, largest first.
        fisher: sums of squared rotated gradients of the same sample.
    """
    from lorif_assets.mathematics.curvature.rank_allocation import LayerDemand, allocate_ranks, query_energy

    recipe, shapes = attributed.fitted_recipe, attributed.record.layer_shapes
    budget = byte_budget(recipe, shapes)
    if budget is None:
        return largest_ranks(attributed)
    sizes = _component_bytes(recipe, shapes)
    demands = {
        layer: LayerDemand(
            query_energy(bases[layer], fisher[layer], recipe.fisher_damping), values[layer].tolist(), sizes[layer]
        )
        for layer in shapes
    }
    return allocate_ranks(demands, budget)


def _component_bytes(recipe: Recipe, shapes: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

    codec = FactorCodec(recipe.factor_dtype)
    return {layer: factor_bytes(codec, d1, d2, 1) for layer, (d1, d2) in shapes.items()}


def _whitened_spectra(
    attributed: "AttributedModel",
    examples: Sequence[TokenizedExample],
    bases: "Mapping[str, KfacBases]",
    batch: "BatchSettings",
    largest: Mapping[str, int],
    progress: "Progress",
    tokens: int,
) -> "tuple[Mapping[str, torch.Tensor], Mapping[str, FisherDiagonal]]":
    """Return the summed squared singular values of whitened gradients, and the sums of squared rotated ones.

    `tokens` are those of a batch.
    """
    # Half of the budget for the gradients being computed, half for those that wait for others of their shape.
    half = max(1, gradient_room(batch, attributed.device) // 2)
    sums = _SpectrumSums(attributed, bases, largest, half)
    with attributed.collector() as collector:
        for positions in attributed.batches(examples, tokens):
            collector.stream(attributed.batch(examples, positions), sums, half)
            sums.finish_batch()
            progress.advance(n_tokens(examples[position] for position in positions))
    spectra = {layer: of_layer.cpu() for layer, of_layer in sums.values.items()}
    for layer, spectrum in spectra.items():
        if not bool(spectrum.isfinite().all()):
            raise not_finite(attributed, layer, "the squares of its gradients are not finite")
    return spectra, sums.fisher


class _SpectrumSums:
    """Sums over examples, by layer, of squared singular values of whitened gradients, and of squared rotated ones.

    A sink of gradients, which takes those of short examples as tokens.
    """

    def __init__(
        self,
        attributed: "AttributedModel",
        bases: "Mapping[str, KfacBases]",
        largest: Mapping[str, int],
        max_numbers: int,
    ) -> None:
        import torch

        from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

        device, shapes = attributed.device, attributed.record.layer_shapes
        self._bases, self._largest, self._shapes, self._max_numbers = bases, largest, shapes, max_numbers
        self._device, self._rounds = device, rounds_on(device, None)
        self._waiting = WaitingGradients(largest, self._rounds, max_numbers, self._take)
        self.values = {layer: torch.zeros(k, dtype=torch.float64, device=device) for layer, k in largest.items()}
        self.fisher = {layer: FisherDiagonal.empty(*shapes[layer], device) for layer in largest}

    def __call__(self, layer: str, rows: slice, gradients: "torch.Tensor") -> None:
        from lorif_assets.mathematics.curvature.whitened_spectra import squared_singular_values

        rotated = self._bases[layer].rotate(gradients)
        whitened = rotated * self._bases[layer].scale
        if self._rounds is None:
            self._add(layer, rotated, squared_singular_values(whitened, self._largest[layer]))
            return
        self._add_squares(layer, rotated)
        self._waiting.add(layer, rows, whitened)

    def finish_batch(self) -> None:
        """Add what waits for gradients of other layers."""
        self._waiting.factorise()

    def takes_tokens(self, layer: str, tokens: int) -> bool:
        from lorif_assets.mathematics.curvature.whitened_spectra import is_cheaper_from_tokens

        return is_cheaper_from_tokens(self._device, tokens, *self._shapes[layer], self._largest[layer])

    def take_tokens(self, layer: str, calls: "TokenCalls") -> None:
        from lorif_assets.mathematics.curvature.whitened_spectra import squared_singular_values_from_tokens
        from lorif_assets.mathematics.factors.token_gradients import TokenGradients
        from lorif_assets.mathematics.matrix_products import product

        bases, tokens = self._bases[layer], TokenGradients.of_calls(calls)
        rotated = TokenGradients(product(tokens.x, bases.q_in), product(tokens.dy, bases.q_out))
        d1, d2 = self._shapes[layer]
        step = max(1, self._max_numbers // (d1 * d2))
        for start in range(0, len(rotated.x), step):
            some = TokenGradients(rotated.x[start : start + step], rotated.dy[start : start + step])
            whitened = TokenGradients(some.x * bases.inputs.weights, some.dy * bases.outputs.weights)
            self._add(layer, some.formed(), squared_singular_values_from_tokens(whitened, self._largest[layer]))

    def _add(self, layer: str, rotated: "torch.Tensor", squared_values: "torch.Tensor") -> None:
        self._add_squares(layer, rotated)
        self.values[layer] += squared_values.sum(0).double()

    def _add_squares(self, layer: str, rotated: "torch.Tensor") -> None:
        from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

        self.fisher[layer] = self.fisher[layer].merge(FisherDiagonal.of(rotated))

    def _take(self, waiting: "Sequence[LayerGradients]", factors: "GradientFactors") -> None:
        squared_values, end = factors.u.double().square().sum(1), 0
        for one in waiting:
            start, end = end, end + one.rows.stop - one.rows.start
            self.values[one.layer] += squared_values[start:end, : self._largest[one.layer]].sum(0)
