"""Which largest width agrees best with exact EK-FAC for the bytes, measured on a sample (docs/method.md: widths and bytes).

Only where the width is left to the model and its gradients can be held whole; otherwise the shapes decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorif_assets.attribution.fit_bases import NotFiniteError, allocated_ranks, covariances, largest_ranks
from lorif_assets.attribution.fitted_recipe import WIDTHS, component_bytes, with_width
from lorif_assets.config.presets import AUTO
from lorif_assets.data.tokenization import n_tokens

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.model import AttributedModel
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.data.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KfacBases
    from lorif_assets.mathematics.factors.low_rank import GradientFactors
    from lorif_assets.progress import Progress

_MOST_NUMBERS = 1 << 21
"""Of an example's gradients without projection: of a larger model the sample would not fit in memory."""
_HELD_NUMBERS = 1 << 27
_EXAMPLES, _FEWEST_EXAMPLES = 128, 16
_QUERIES_SHARE = 4
_FIRST = 20
_WORTHWHILE = 0.01
"""Agreement by which another width must be ahead of the one that the shapes decide; less may be the sample's chance."""
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
class _LayerSample:
    """A layer's bases, its sums of squares, and the sample's gradients: whitened [n, d1, d2], and as queries [Q, D]."""

    bases: "KfacBases"
    fisher: "FisherDiagonal"
    whitened: "torch.Tensor"
    preconditioned: "torch.Tensor"


def measured_tokens(attributed: "AttributedModel", examples: "Sequence[TokenizedExample]") -> int:
    """Return the tokens that `at_measured_width` passes through the model."""
    sample = _sample(attributed, examples)
    return _PASSES * (len(_candidates(attributed)) + 1) * n_tokens(sample) if sample else 0


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
    exact = _exact_scores(_layer_samples(whole, sample, batch, progress))
    trials = []
    for width in _candidates(attributed):
        at = attributed.at_width(width)
        scores, kept_bytes = _kept_scores(at, _layer_samples(at, sample, batch, progress))
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
    numbers = sum(p.layer.d_in * p.layer.d_out for p in attributed.projections)
    if attributed.recipe.max_width != AUTO or numbers > _MOST_NUMBERS or len(examples) < _FEWEST_EXAMPLES:
        return ()
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


def _layer_samples(
    attributed: "AttributedModel", sample: "Sequence[TokenizedExample]", batch: "BatchSettings", progress: "Progress"
) -> dict[str, _LayerSample]:
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KroneckerPreconditioner

    recipe, n_queries = attributed.recipe, _n_queries(sample)
    sums = covariances(attributed, sample, batch, progress, seed=0)
    gradients = _gradients(attributed, sample, batch, progress)
    found = {}
    for layer in attributed.record.layer_shapes:
        try:
            bases = sums.pop(layer).bases(recipe.whitening_damping)
        except ValueError as error:
            raise NotFiniteError(
                f"the layer {layer!r} of checkpoint {attributed.record.name!r} gives no K-FAC bases: {error}"
            ) from error
        of_layer = gradients.pop(layer)
        rotated = bases.rotate(of_layer)
        fisher = FisherDiagonal.of(rotated)
        inverse = KroneckerPreconditioner(bases, fisher.eigenvalues, recipe.fisher_damping)
        found[layer] = _LayerSample(
            bases, fisher, rotated * bases.scale, inverse.apply(of_layer[:n_queries].flatten(1))
        )
    return found


def _gradients(
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


def _n_queries(sample: "Sequence[TokenizedExample]") -> int:
    return len(sample) // _QUERIES_SHARE


def _exact_scores(layers: Mapping[str, _LayerSample]) -> "torch.Tensor":
    """Return the scores [Q, n - Q] of the examples that are no queries, by whole gradients."""
    return sum(_scores(layer.preconditioned, layer.whitened) for layer in layers.values())  # type: ignore[return-value]


def _kept_scores(attributed: "AttributedModel", layers: Mapping[str, _LayerSample]) -> "tuple[torch.Tensor, int]":
    """Return the same by what would be stored of the gradients, and the bytes of an example."""
    from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode, factor_bytes
    from lorif_assets.mathematics.factors.low_rank import low_rank_factors, singular_factors

    recipe, shapes = attributed.fitted_recipe, attributed.record.layer_shapes
    largest = largest_ranks(attributed)
    factors: dict[str, GradientFactors] = {
        name: singular_factors(low_rank_factors(layer.whitened, largest[name], rounds=recipe.factor_rounds))
        for name, layer in layers.items()
    }
    ranks = allocated_ranks(
        attributed,
        {name: layer.bases for name, layer in layers.items()},
        {name: of_layer.u.double().square().sum(dim=(0, 1)) for name, of_layer in factors.items()},
        {name: layer.fisher for name, layer in layers.items()},
    )
    codec, every = FactorCodec(recipe.factor_dtype), slice(None)
    scores = []
    for name, layer in layers.items():
        kept = decode(encode(factors[name].leading(every, ranks[name]), codec), codec, *shapes[name])
        scores.append(_scores(layer.preconditioned, kept.dense()))
    return sum(scores[1:], scores[0]), sum(factor_bytes(codec, *shapes[name], rank) for name, rank in ranks.items())


def _scores(preconditioned: "torch.Tensor", whitened: "torch.Tensor") -> "torch.Tensor":
    return preconditioned @ whitened[len(preconditioned) :].flatten(1).mT


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
