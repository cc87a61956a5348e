"""Fitting a checkpoint's K-FAC bases by workers: sums over two halves of the sample, then bases and ranks of all layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.checkpoints.opened import OpenedCheckpoint
from lorif_assets.attribution.factors.sound_examples import NotFiniteError, set_aside
from lorif_assets.attribution.fitting.fit_bases import (
    FEWEST_EXAMPLES,
    KfacFit,
    KfacSample,
    covariances,
    kfac_sample,
    layer_fits,
    without_unsound,
)
from lorif_assets.attribution.fitting.layer_ranks import RANK_EXAMPLES
from lorif_assets.attribution.fitting.measured_width import (
    WidthTrial,
    at_measured_width,
    expected_agreement,
    measured_tokens,
)
from lorif_assets.attribution.fitting.optimizer_axes import with_second_moments
from lorif_assets.attribution.stored.bases import bases_version
from lorif_assets.compute.shard_work import Step, Workers, result, results
from lorif_assets.data.rows.rejected import RejectedRow
from lorif_assets.data.tokens.tokenization import TokenizedExample, n_tokens
from lorif_assets.models.training.optimizer_states import optimizer_version

if TYPE_CHECKING:
    from lorif_assets.mathematics.curvature.kfac_bases import KfacCovariances


@dataclass(frozen=True)
class SampleHalf:
    """Every other example of the sample: those of one half measure how well the other half's bases fit them."""

    number: int

    def __str__(self) -> str:
        return f"half {self.number + 1} of the sample"


HALVES = (SampleHalf(0), SampleHalf(1))


@dataclass(frozen=True)
class MeasuredWidths:
    """The largest width that was measured best, what was tried, and how well it agrees; None and nothing: not measured."""

    max_width: int | None
    trials: Sequence[WidthTrial]
    expected_agreement: float | None


@dataclass(frozen=True)
class FittedBases:
    """Rows of `kfac_bases` whose tensors are written, and how well the halves of the sample agree on the worst layer."""

    rows: Sequence[Mapping[str, Any]]
    n_examples: int
    half_agreement: float
    widths: MeasuredWidths
    not_finite: Sequence[RejectedRow] = ()
    """Examples of the sample that were set aside because their loss or a gradient is not finite."""


def read_sample(workers: Workers[OpenedCheckpoint]) -> KfacSample:
    """Return the sample, as a worker's tokenizer reads it.

    Raises:
        MismatchError: there are no training examples.
    """
    sample: KfacSample = result(workers, kfac_sample)
    return sample


def fit_to_sample(workers: Workers[OpenedCheckpoint], sample: KfacSample) -> FittedBases:
    """Fit the bases of every tracked layer to the sound examples, and write their tensors.

    The others are looked for where a sum over all is not finite, so that a sound sample costs no more.

    Raises:
        LorifError: fewer than two examples are sound, or they overflow together.
        SettingsError: the byte budget does not pay for one component of every layer.
    """
    examples = sample.tokenized.examples
    fitted = _fit(workers, sample.sample_hash, examples, may_fail=True)
    if isinstance(fitted, FittedBases):
        return fitted
    sound, set_aside = result(workers, _sound, examples, fitted)
    return replace(_fit(workers, sample.sample_hash, sound, may_fail=False), not_finite=set_aside)


@overload
def _fit(
    workers: Workers[OpenedCheckpoint],
    sample_hash: str,
    examples: Sequence[TokenizedExample],
    *,
    may_fail: Literal[False],
) -> FittedBases: ...


@overload
def _fit(
    workers: Workers[OpenedCheckpoint],
    sample_hash: str,
    examples: Sequence[TokenizedExample],
    *,
    may_fail: Literal[True],
) -> FittedBases | str: ...


def _fit(
    workers: Workers[OpenedCheckpoint], sample_hash: str, examples: Sequence[TokenizedExample], *, may_fail: bool
) -> FittedBases | str:
    """Return the bases of some examples; or, where it may fail, the words of what is not finite."""
    widths: MeasuredWidths | str = result(workers, _measured, examples, may_fail)
    if isinstance(widths, str):
        return widths
    halves = list(results(workers, Step(_sums_over, (examples, widths)), HALVES))
    fitted: FittedBases | str = result(workers, _fitted, sample_hash, examples, widths, halves, may_fail)
    return fitted


def _measured(state: OpenedCheckpoint, examples: Sequence[TokenizedExample], may_fail: bool) -> MeasuredWidths | str:
    tokens = measured_tokens(state.model, examples)
    with state.worker.progress(f"{state.stored.record.name} widths", tokens, "tok") as progress:
        try:
            model, trials = at_measured_width(state.model, examples, state.batch, progress)
        except NotFiniteError as error:
            if not may_fail:
                raise
            # As words: another machine's errors are wrapped in its name.
            return str(error)
    return MeasuredWidths(model.max_width, trials, expected_agreement(model, trials))


def _model(state: OpenedCheckpoint, widths: MeasuredWidths) -> AttributedModel:
    return state.model if widths.max_width is None else state.model.at_width(widths.max_width)


def _sums_over(
    state: OpenedCheckpoint, half: SampleHalf, examples: Sequence[TokenizedExample], widths: MeasuredWidths
) -> "dict[str, KfacCovariances]":
    chosen = examples[half.number :: len(HALVES)]
    with state.worker.progress(f"{state.stored.record.name} {half}", n_tokens(chosen), "tok") as progress:
        return covariances(_model(state, widths), chosen, state.batch, progress, seed=half.number)


def _sound(
    state: OpenedCheckpoint, examples: Sequence[TokenizedExample], fault: str
) -> tuple[Sequence[TokenizedExample], Sequence[RejectedRow]]:
    sound, unsound = without_unsound(state.model, examples, state.batch, state.worker.log)
    if not unsound or len(sound) < FEWEST_EXAMPLES:
        raise NotFiniteError(fault)
    return sound, [set_aside(state.model, example) for example in unsound]


def _fitted(
    state: OpenedCheckpoint,
    sample_hash: str,
    examples: Sequence[TokenizedExample],
    widths: MeasuredWidths,
    halves: "Sequence[dict[str, KfacCovariances]]",
    may_fail: bool,
) -> FittedBases | str:
    model, name = _model(state, widths), state.stored.record.name
    tokens = n_tokens(examples[:RANK_EXAMPLES])
    with state.worker.progress(f"{name} K-FAC bases", tokens, "tok") as progress:
        try:
            layers, optimizer = layer_fits(model, examples, halves, state.batch, progress), None
            if model.recipe.reads_optimizer:
                folder = state.checkpoints.get(name).path
                # Before it is read: a write in the meantime makes it another one.
                optimizer = optimizer_version(folder)
                layers = with_second_moments(layers, model, folder)
        except NotFiniteError as error:
            if not may_fail:
                raise
            return str(error)
    fit = KfacFit(layers, len(examples), sample_hash)
    agreement = min(layer.half_agreement for layer in fit.layers.values())
    return FittedBases(_written(state, model, fit, widths, optimizer), fit.n_examples, agreement, widths)


def _written(
    state: OpenedCheckpoint, model: AttributedModel, fit: KfacFit, widths: MeasuredWidths, optimizer: str | None
) -> list[dict[str, Any]]:
    from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

    stored = state.stored
    lake, recipe, record = stored.lake, stored.recipe, stored.record
    codec, fingerprint = FactorCodec(recipe.factor_dtype), fit.fingerprint
    return [
        {
            "checkpoint": record.name,
            "layer": name,
            "d1": d1,
            "d2": d2,
            "rank": fit.layers[name].rank,
            "bytes_per_example": factor_bytes(codec, d1, d2, fit.layers[name].rank),
            "kept_energy": fit.layers[name].kept_energy,
            "max_width": widths.max_width,
            "expected_agreement": widths.expected_agreement,
            "n_examples": fit.n_examples,
            "n_tokens": fit.layers[name].n_tokens,
            "labels": recipe.kfac_labels,
            "half_agreement": fit.layers[name].half_agreement,
            "uri": lake.write_tensors(f"kfac_bases_tensors/{record.name}", fit.layers[name].bases.tensors()),
            "fingerprint": fingerprint,
            "sample_hash": fit.sample_hash,
            "version": bases_version(recipe, record.weights_hash, record.tokenizer_hash),
            "recipe_hash": recipe.factor_hash,
            "weights_hash": record.weights_hash,
            "projection": model.projection,
            "optimizer": optimizer,
        }
        for name, (d1, d2) in model.record.layer_shapes.items()
    ]
