"""Which largest width agrees best with exact EK-FAC for the bytes, measured on a sample (docs/method.md: widths and bytes).

Only where the width is left to the model and its gradients can be held whole; otherwise the shapes decide.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorif_assets.attribution.factors.sound_examples import not_finite
from lorif_assets.attribution.fitting.fit_bases import covariances
from lorif_assets.attribution.fitting.layer_ranks import allocated_ranks, largest_ranks
from lorif_assets.attribution.recipes.fitted_recipe import SMALL_MODEL, WIDTHS, component_bytes, with_width
from lorif_assets.config.presets import AUTO
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.tokens.tokenization import n_tokens

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.checkpoints.model import AttributedModel
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.data.tokens.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases, KfacCovariances
    from lorif_assets.mathematics.factors.low_rank import GradientFactors
    from lorif_assets.mathematics.gradients.layers import TrackedLayer
    from lorif_assets.mathematics.gradients.projection import LayerProjection
    from lorif_assets.progress import Progress

_WIDEST = 1 << 12
"""Of the sides, whose eigenbases without projection take the cube of it."""
_HELD_NUMBERS = 1 << 27
_EXAMPLES, _FEWEST_EXAMPLES = 128, 16
_QUERIES_SHARE = 4
_FIRST = 20
_WORTHWHILE = 0.02
"""Agreement by which another width must be ahead of the one that the shapes decide; less is the sample's chance: at 0.012 a
width was taken that lost 0.07 of LDS."""
_PASSES = 2


@dataclass(frozen=True)
class WidthTrial:
    """A largest width, the bytes that an example takes at it, and how well its scores agree with exact EK-FAC.

    `agreement` is NDCG@20 over the sampled examples, the mean over other sampled examples as queries.
    """

    max_width: int
    bytes_per_example: int
    agreement: float


@dataclass(frozen=True)
class _WholeSample:
    """What one measurement of the sample gives for every width: sums over tokens and gradients without projection."""

    sums: "Mapping[str, KfacCovariances]"
    gradients: "Mapping[str, torch.Tensor]"
    """By layer, [n, d_in, d_out]."""


@dataclass(frozen=True)
class _LayerSample:
    """A layer's bases, its sums of squares, and the sample's gradients: whitened [n, d1, d2], and as queries [Q, D]."""

    bases: "KfacBases"
    fisher: "FisherDiagonal"
    whitened: "torch.Tensor"
    preconditioned: "torch.Tensor"


def is_measured(recipe: Recipe, layers: "Iterable[TrackedLayer]") -> bool:
    """Return whether a recipe leaves the width of these layers to a measurement: their whole gradients are small enough."""
    shapes = [(layer.d_in, layer.d_out) for layer in layers]
    is_small = sum(d1 * d2 for d1, d2 in shapes) <= SMALL_MODEL and max(map(max, shapes)) <= _WIDEST
    return recipe.max_width == AUTO and is_small


def measured_tokens(attributed: "AttributedModel", examples: "Sequence[TokenizedExample]") -> int:
    """Return the tokens that `at_measured_width` passes through the model."""
    sample = _sample(attributed, examples)
    return _PASSES * n_tokens(sample) if sample else 0


def at_measured_width(
    attributed: "AttributedModel", examples: "Sequence[TokenizedExample]", batch: "BatchSettings", progress: "Progress"
) -> "tuple[AttributedModel, Sequence[WidthTrial]]":
    """Return the model at the width that agrees best with exact EK-FAC, and what was tried; as it is where none was.

    Args:
        attributed: the model, at the width that its shapes decide.
        examples: a random sample of the training examples; the first ones are used.
        batch: budgets.
        progress: advances by tokens, `measured_tokens` in all.

    Raises:
        NotFiniteError: activations or gradients are not finite.
    """
    sample = _sample(attributed, examples)
    if not sample:
        return attributed, ()
    whole = attributed.at_width(max(max(p.layer.d_in, p.layer.d_out) for p in attributed.projections))
    measured = _WholeSample(
        covariances(whole, sample, batch, progress, seed=0), _whole_gradients(whole, sample, batch, progress)
    )
    exact = _exact_scores(whole, measured)
    trials = []
    for width in _candidates(attributed):
        scores, kept_bytes = _kept_scores(attributed.at_width(width), measured)
        trials.append(WidthTrial(width, kept_bytes, _agreement(scores, exact)))
    own = next(trial for trial in trials if trial.max_width == _own_width(attributed))
    best = max(trials, key=lambda trial: trial.agreement)
    chosen = best if best.agreement >= own.agreement + _WORTHWHILE else own
    return attributed.at_width(chosen.max_width), trials


def expected_agreement(attributed: "AttributedModel", trials: Sequence[WidthTrial]) -> float | None:
    """Return how well scores at the model's width agree with exact EK-FAC; None where that was not measured."""
    return next((trial.agreement for trial in trials if trial.max_width == attributed.max_width), None)


def _sample(attributed: "AttributedModel", examples: "Sequence[TokenizedExample]") -> "Sequence[TokenizedExample]":
    """Return the examples to measure with; none where the width is set, or the sample is too small or too large."""
    layers = [projection.layer for projection in attributed.projections]
    if not is_measured(attributed.recipe, layers) or len(examples) < _FEWEST_EXAMPLES:
        return ()
    numbers = sum(layer.d_in * layer.d_out for layer in layers)
    return examples[: min(_EXAMPLES, _HELD_NUMBERS // numbers)]


def _candidates(attributed: "AttributedModel") -> list[int]:
    """Return the widths whose bytes pay for a component of every layer, of those that project alike the model's own first."""
    layers = [p.layer for p in attributed.projections]
    recipe, own = attributed.fitted_recipe, _own_width(attributed)
    found = {tuple(map(recipe.projection.shape, layers)): own}
    for width in WIDTHS:
        at = with_width(attributed.recipe, width, layers)
        if (recipe.byte_budget or 0) >= component_bytes(at, layers):
            found.setdefault(tuple(map(at.projection.shape, layers)), width)
    return sorted(found.values())


def _own_width(attributed: "AttributedModel") -> int:
    width = attributed.fitted_recipe.max_width
    if not isinstance(width, int):
        raise TypeError(f"expected a recipe with a largest width, found {width!r}")
    return width


def _whole_gradients(
    attributed: "AttributedModel", sample: "Sequence[TokenizedExample]", batch: "BatchSettings", progress: "Progress"
) -> "dict[str, torch.Tensor]":
    import torch

    shapes, device = attributed.record.layer_shapes, attributed.device
    gradients = {layer: torch.empty(len(sample), *shape, device=device) for layer, shape in shapes.items()}
    with attributed.collector() as collector:
        for positions in attributed.batches(sample, batch.tokens):
            places = torch.tensor(positions, device=device)

            def sink(layer: str, rows: slice, found: torch.Tensor, places: torch.Tensor = places) -> None:
                gradients[layer][places[rows]] = found.float()

            collector.stream(attributed.batch(sample, positions), sink, batch.gradient_numbers)
            progress.advance(n_tokens(sample[position] for position in positions))
    return gradients


def _layer_sample(attributed: "AttributedModel", projection: "LayerProjection", measured: _WholeSample) -> _LayerSample:
    """Return one layer's part of the sample in the axes of its projection."""
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KroneckerPreconditioner

    layer, recipe = projection.layer.name, attributed.recipe
    # Of a model in FP64, the sums are too.
    of_whole = measured.gradients[layer].to(measured.sums[layer].inputs)
    moved = projection.to(of_whole.device, of_whole.dtype)
    try:
        bases = measured.sums[layer].projected(moved).bases(recipe.whitening_damping)
    except ValueError as error:
        raise not_finite(attributed, layer, str(error)) from error
    gradients = moved.apply(of_whole)
    rotated = bases.rotate(gradients)
    fisher = FisherDiagonal.of(rotated)
    inverse = KroneckerPreconditioner(bases, fisher.eigenvalues, recipe.fisher_damping)
    queries = gradients[: len(gradients) // _QUERIES_SHARE].flatten(1)
    return _LayerSample(bases, fisher, rotated * bases.scale, inverse.apply(queries))


def _exact_scores(whole: "AttributedModel", measured: _WholeSample) -> "torch.Tensor":
    """Return the scores [Q, n - Q] of the examples that are no queries, by whole gradients."""
    layers = (_layer_sample(whole, projection, measured) for projection in whole.projections)
    return sum(_scores(layer.preconditioned, layer.whitened) for layer in layers)  # type: ignore[return-value]


def _kept_scores(attributed: "AttributedModel", measured: _WholeSample) -> "tuple[torch.Tensor, int]":
    """Return the same by what would be stored of the gradients at the model's width, and the bytes of an example."""
    from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode, factor_bytes
    from lorif_assets.mathematics.factors.low_rank import low_rank_factors, singular_factors

    recipe, shapes = attributed.fitted_recipe, attributed.record.layer_shapes
    largest = largest_ranks(attributed)
    bases: dict[str, KfacBases] = {}
    fisher: dict[str, FisherDiagonal] = {}
    factors: dict[str, GradientFactors] = {}
    preconditioned: dict[str, torch.Tensor] = {}
    for projection in attributed.projections:
        name, layer = projection.layer.name, _layer_sample(attributed, projection, measured)
        bases[name], fisher[name], preconditioned[name] = layer.bases, layer.fisher, layer.preconditioned
        factors[name] = singular_factors(low_rank_factors(layer.whitened, largest[name], rounds=recipe.factor_rounds))
    energies = {name: of_layer.u.double().square().sum(dim=(0, 1)) for name, of_layer in factors.items()}
    ranks = allocated_ranks(attributed, bases, energies, fisher)
    codec, every = FactorCodec(recipe.factor_dtype), slice(None)
    scores = []
    for name, queries in preconditioned.items():
        kept = decode(encode(factors[name].leading(every, ranks[name]), codec), codec, *shapes[name])
        scores.append(_scores(queries, kept.dense()))
    return sum(scores[1:], scores[0]), sum(factor_bytes(codec, *shapes[name], rank) for name, rank in ranks.items())


def _scores(preconditioned: "torch.Tensor", whitened: "torch.Tensor") -> "torch.Tensor":
    return preconditioned @ whitened[len(preconditioned) :].flatten(1).mT.to(preconditioned)


def _agreement(scores: "torch.Tensor", exact: "torch.Tensor") -> float:
    """Return NDCG@20: how much of the exact scores of the best 20 the first 20 have, early places counting more.

    The mean over queries; one that nothing speaks for counts as 0.
    """
    import torch

    k = min(_FIRST, exact.shape[1])
    gains, discounts = exact.double().clamp(min=0.0), torch.arange(2, k + 2, device=exact.device).double().log2()

    def gain(by: torch.Tensor) -> torch.Tensor:
        first = by.argsort(dim=1, descending=True, stable=True)[:, :k]
        return (gains.gather(1, first) / discounts).sum(dim=1)

    best = gain(exact)
    return float((gain(scores) / best.where(best > 0, 1.0)).mean())
