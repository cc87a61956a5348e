"""The inverse curvature of whole gradients, neither projected nor compressed: EK-FAC fitted in memory to a sample."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.sound_examples import NotFiniteError, not_finite
from lorif_assets.attribution.fitting.fit_bases import FEWEST_EXAMPLES, covariances, kfac_sample, without_unsound
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import n_tokens
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from lorif_assets.data.tokens.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KroneckerPreconditioner
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
    from lorif_assets.mathematics.gradients.projection import Projection


@dataclass(frozen=True)
class WholeCurvature:
    """Each layer's damped inverse, the model that gives the gradients, and the examples that the inverse was fitted to."""

    attributed: AttributedModel
    inverses: "Mapping[str, KroneckerPreconditioner]"
    sample: "Sequence[TokenizedExample]"


@dataclass(frozen=True)
class WholeGradients:
    """A model that gives the tracked layers' whole gradients, and the sample that their curvature is measured on."""

    attributed: AttributedModel
    sample: "Sequence[TokenizedExample]"
    own: AttributedCheckpoint | None
    """Where the recipe whitens and projects nothing, the checkpoint, whose stored inverse is of whole gradients."""

    @classmethod
    def of(
        cls, checkpoint: AttributedCheckpoint, settings: ExactScoreSettings, widest: int | None = None
    ) -> "WholeGradients":
        """Draw the sample.

        Args:
            checkpoint: its factors are not read.
            settings: the size of the sample.
            widest: sides that are wider are projected to it, or to what the recipe leaves of them if that is more; None: none.

        Raises:
            LorifError: fewer than two examples of the sample can be used.
        """
        attributed = unprojected(checkpoint.model) if widest is None else _hardly_projected(checkpoint.model, widest)
        recipe = attributed.recipe.changed(kfac_examples=settings.examples)
        # The seed's first examples, whatever their number is for.
        sample = kfac_sample(replace(checkpoint, model=replace(attributed, recipe=recipe)))
        sample.refuse_too_few(attributed.record.name)
        is_stored = attributed.projection == checkpoint.model.projection and checkpoint.model.recipe.whitens
        return cls(attributed, sample.tokenized.examples, checkpoint if is_stored else None)

    def of_layers(self, layers: Collection[str]) -> "WholeGradients":
        """Return the same of some layers alone."""
        attributed = self.attributed
        shapes = {layer: shape for layer, shape in attributed.record.layer_shapes.items() if layer in layers}
        projections = [one for one in attributed.projections if one.layer.name in layers]
        record = replace(attributed.record, layer_shapes=shapes)
        return replace(self, attributed=replace(attributed, record=record, projections=projections))

    @property
    def fit_tokens(self) -> int:
        """Tokens of the passes that fitting takes."""
        return 0 if self.own else 2 * n_tokens(self.sample)

    @property
    def inverse_bytes(self) -> int:
        """Of the inverse in memory."""
        return inverse_bytes(self.attributed.record.layer_shapes.values())

    def curvature(self, batch: BatchSettings, progress: Progress) -> WholeCurvature:
        """Return each layer's damped inverse; `progress` advances by tokens, `fit_tokens` in all.

        Examples whose loss or gradients are not finite are left out, and named in the log.

        Raises:
            NotFiniteError: activations or gradients of the sample are not finite together, or of all but one example.
        """
        from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner

        if self.own is not None:
            stored = {layer: self.own.inverse_of(layer) for layer in self.attributed.record.layer_shapes}
            inverses = {layer: one for layer, one in stored.items() if isinstance(one, KroneckerPreconditioner)}
            return WholeCurvature(self.attributed, inverses, self.sample)
        try:
            return self._fitted(self.sample, batch, progress)
        except NotFiniteError:
            sound, unsound = without_unsound(self.attributed, self.sample, batch, progress.log)
            if not unsound or len(sound) < FEWEST_EXAMPLES:
                raise
        return self._fitted(sound, batch, progress)

    def _fitted(self, sample: "Sequence[TokenizedExample]", batch: BatchSettings, progress: Progress) -> WholeCurvature:
        from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner

        attributed, recipe, bases = self.attributed, self.attributed.recipe, dict[str, "KfacBases"]()
        sums = covariances(attributed, sample, batch, progress, seed=0)
        for layer in list(sums):
            try:
                bases[layer] = sums.pop(layer).bases(recipe.whitening_damping)
            except ValueError as error:
                raise not_finite(attributed, layer, str(error)) from error
        fisher = _fisher(attributed, sample, bases, batch, progress)
        for layer, squares in fisher.items():
            for fault in squares.faults():
                raise not_finite(attributed, layer, fault)
        inverses = {
            layer: KroneckerPreconditioner(of_layer, fisher[layer].eigenvalues, recipe.fisher_damping)
            for layer, of_layer in bases.items()
        }
        return WholeCurvature(attributed, inverses, sample)


def inverse_bytes(shapes: Iterable[tuple[int, int]]) -> int:
    """Return the bytes of EK-FAC's inverse in layers of these widths: both bases in FP32, and eigenvalues in FP64."""
    return sum(4 * (d1 * d1 + d2 * d2) + 8 * d1 * d2 for d1, d2 in shapes)


def unprojected(attributed: AttributedModel) -> AttributedModel:
    """Return the same loaded checkpoint with the same layers, and nothing projected."""
    from lorif_assets.mathematics.gradients.projection import Projection

    return _projected(attributed, Projection(factor=1, seed=attributed.recipe.seed))


def _hardly_projected(attributed: AttributedModel, widest: int) -> AttributedModel:
    """Return the same loaded checkpoint with sides wider than this projected to it, none to less than the recipe leaves."""
    own = attributed.fitted_recipe.projection
    least = own.max_factor if own.factor is None else own.factor
    return _projected(
        attributed, replace(own, factor=None, max_width=max(widest, own.max_width or 1), max_factor=least)
    )


def _projected(attributed: AttributedModel, projection: "Projection") -> AttributedModel:
    from lorif_assets.mathematics.gradients.projection import fingerprint, layer_projection

    layers = [one.layer for one in attributed.projections]
    projections = [layer_projection(layer, projection) for layer in layers]
    shapes = {one.layer.name: (one.d1, one.d2) for one in projections}
    return replace(
        attributed,
        record=replace(attributed.record, layer_shapes=shapes, frozen_bases=None),
        projections=projections,
        projection=fingerprint(layers, projection),
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
