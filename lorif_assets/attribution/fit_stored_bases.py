"""Fitting a checkpoint's K-FAC bases by workers: sums over two halves of the sample, then bases and ranks of all layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorif_assets.attribution.fit_bases import RANK_EXAMPLES, KfacFit, KfacSample, covariances, kfac_sample, layer_fits
from lorif_assets.attribution.opened_checkpoint import OpenedCheckpoint
from lorif_assets.attribution.stored_bases import bases_version
from lorif_assets.compute.shard_work import Step, Workers, result, results
from lorif_assets.data.tokenization import n_tokens

if TYPE_CHECKING:
    from lorif_assets.mathematics.curvature.ekfac import KfacCovariances


@dataclass(frozen=True)
class SampleHalf:
    """Every other example of the sample: those of one half measure how well the other half's bases fit them."""

    number: int

    def __str__(self) -> str:
        return f"half {self.number + 1} of the sample"


HALVES = (SampleHalf(0), SampleHalf(1))


@dataclass(frozen=True)
class FittedBases:
    """Rows of `kfac_bases` whose tensors are written, and how well the halves of the sample agree on the worst layer."""

    rows: Sequence[Mapping[str, Any]]
    n_examples: int
    half_agreement: float


def read_sample(workers: Workers[OpenedCheckpoint]) -> KfacSample:
    """Return the sample, as a worker's tokenizer reads it.

    Raises:
        MismatchError: there are no training examples.
    """
    sample: KfacSample = result(workers, kfac_sample)
    return sample


def fit_to_sample(workers: Workers[OpenedCheckpoint], sample: KfacSample) -> FittedBases:
    """Fit the bases of every tracked layer, and write their tensors.

    Raises:
        LorifError: activations or gradients are not finite.
        SettingsError: the byte budget does not pay for one component of every layer.
    """
    halves = list(results(workers, Step(_sums_over, (sample,)), HALVES))
    fitted: FittedBases = result(workers, _fitted, sample, halves)
    return fitted


def _sums_over(state: OpenedCheckpoint, half: SampleHalf, sample: KfacSample) -> "dict[str, KfacCovariances]":
    examples = sample.tokenized.examples[half.number :: len(HALVES)]
    with state.worker.progress(f"{state.stored.record.name} {half}", n_tokens(examples), "tok") as progress:
        return covariances(state.model, examples, state.batch, progress, seed=half.number)


def _fitted(state: OpenedCheckpoint, sample: KfacSample, halves: "Sequence[dict[str, KfacCovariances]]") -> FittedBases:
    model, examples = state.model, sample.tokenized.examples
    name, tokens = state.stored.record.name, n_tokens(examples[:RANK_EXAMPLES])
    with state.worker.progress(f"{name} K-FAC bases", tokens, "tok") as progress:
        fit = KfacFit(layer_fits(model, examples, halves, state.batch, progress), len(examples), sample.sample_hash)
    agreement = min(layer.half_agreement for layer in fit.layers.values())
    return FittedBases(_written(state, fit), fit.n_examples, agreement)


def _written(state: OpenedCheckpoint, fit: KfacFit) -> list[dict[str, Any]]:
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
            "projection": state.model.projection,
        }
        for name, (d1, d2) in record.layer_shapes.items()
    ]
