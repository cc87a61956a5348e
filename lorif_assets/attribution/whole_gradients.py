"""The inverse curvature of whole gradients, neither projected nor compressed: EK-FAC fitted in memory to a sample."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.fit_bases import covariances, kfac_sample
from lorif_assets.attribution.model import AttributedModel
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokenization import n_tokens
from lorif_assets.errors import LorifError
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from lorif_assets.data.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KroneckerPreconditioner
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases


@dataclass(frozen=True)
class WholeGradients:
    """A model that gives the tracked layers' whole gradients, and the sample that their curvature is measured on."""

    attributed: AttributedModel
    sample: "Sequence[TokenizedExample]"
    own: AttributedCheckpoint | None
    """Where the recipe whitens and projects nothing, the checkpoint, whose stored inverse is of whole gradients."""

    @classmethod
    def of(cls, checkpoint: AttributedCheckpoint, settings: ExactScoreSettings) -> "WholeGradients":
        """Draw the sample.

        Raises:
            LorifError: fewer than two examples of the sample can be used.
        """
        attributed = unprojected(checkpoint.model)
        recipe = attributed.recipe.changed(kfac_examples=settings.examples)
        # The seed's first examples, whatever their number is for.
        sample = kfac_sample(replace(checkpoint, model=replace(attributed, recipe=recipe)))
        sample.refuse_too_few(attributed.record.name)
        is_whole = all(p.p_in is None and p.p_out is None for p in checkpoint.model.projections)
        own = checkpoint if is_whole and checkpoint.model.recipe.whitens else None
        return cls(attributed, sample.tokenized.examples, own)

    @property
    def fit_tokens(self) -> int:
        """Tokens of the passes that fitting takes."""
        return 0 if self.own else 2 * n_tokens(self.sample)

    @property
    def inverse_bytes(self) -> int:
        """Of the inverse in memory."""
        return inverse_bytes(self.attributed.record.layer_shapes.values())

    def inverses(self, batch: BatchSettings, progress: Progress) -> "dict[str, KroneckerPreconditioner]":
        """Return each layer's damped inverse; `progress` advances by tokens, `fit_tokens` in all.

        Raises:
            LorifError: activations or gradients of the sample are not finite.
        """
        from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner

        if self.own is not None:
            stored = {layer: self.own.inverse_of(layer) for layer in self.attributed.record.layer_shapes}
            return {layer: inverse for layer, inverse in stored.items() if isinstance(inverse, KroneckerPreconditioner)}
        recipe = self.attributed.recipe
        sums = covariances(self.attributed, self.sample, batch, progress, seed=0)
        try:
            bases = {layer: sums.pop(layer).bases(recipe.whitening_damping) for layer in list(sums)}
        except ValueError as error:
            name = self.attributed.record.name
            raise LorifError(f"EK-FAC cannot be fitted to whole gradients of {name!r}: {error}") from error
        fisher = _fisher(self.attributed, self.sample, bases, batch, progress)
        return {
            layer: KroneckerPreconditioner(of_layer, fisher[layer].eigenvalues, recipe.fisher_damping)
            for layer, of_layer in bases.items()
        }


def inverse_bytes(shapes: Iterable[tuple[int, int]]) -> int:
    """Return the bytes of EK-FAC's inverse in layers of these widths: both bases in FP32, and eigenvalues in FP64."""
    return sum(4 * (d1 * d1 + d2 * d2) + 8 * d1 * d2 for d1, d2 in shapes)


def unprojected(attributed: AttributedModel) -> AttributedModel:
    """Return the same loaded checkpoint with the same layers, and nothing projected."""
    from lorif_assets.mathematics.gradients.projection import Projection, fingerprint, layer_projection

    whole = Projection(factor=1, seed=attributed.recipe.seed)
    layers = [projection.layer for projection in attributed.projections]
    shapes = {layer.name: (layer.d_in, layer.d_out) for layer in layers}
    return replace(
        attributed,
        record=replace(attributed.record, layer_shapes=shapes, frozen_bases=None),
        projections=[layer_projection(layer, whole) for layer in layers],
        projection=fingerprint(layers, whole),
    )


def _fisher(
    attributed: AttributedModel,
    examples: "Sequence[TokenizedExample]",
    bases: "Mapping[str, KfacBases]",
    batch: BatchSettings,
    progress: Progress,
) -> "dict[str, FisherDiagonal]":
    """Return the layers' sums of squared rotated gradients."""
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

    fisher: dict[str, FisherDiagonal] = {}

    def sink(layer: str, _rows: slice, gradients: "Tensor") -> None:
        squares = FisherDiagonal.of(bases[layer].rotate(gradients))
        fisher[layer] = fisher[layer].merge(squares) if layer in fisher else squares

    with attributed.collector() as collector:
        for positions in attributed.batches(examples, batch.tokens):
            collector.stream(attributed.batch(examples, positions), sink, batch.gradient_numbers)
            progress.advance(n_tokens(examples[position] for position in positions))
    return fisher
