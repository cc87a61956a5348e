"""Adding the optimiser's second moments to a checkpoint's bases, where the recipe's curvature is made of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.errors import CheckpointError
from lorif_assets.models.training.optimizer_states import root_second_moments

if TYPE_CHECKING:
    from lorif_assets.attribution.fitting.fit_bases import LayerFit


def with_second_moments(
    fits: "Mapping[str, LayerFit]", attributed: AttributedModel, folder: Path
) -> "dict[str, LayerFit]":
    """Return the fits with the roots of Adam's second moments along the axes of each layer's bases.

    Args:
        fits: by layer.
        attributed: the loaded checkpoint, whose layers and projections those are.
        folder: of the checkpoint.

    Raises:
        CheckpointError: there is no whole state of an Adam, or a layer's weight is no matrix of its own.
    """
    from lorif_assets.mathematics.curvature.adam import along_axes
    from lorif_assets.mathematics.gradients.layers import Sight, linear_weights

    weights = linear_weights(attributed.model)
    fused = next((name for name in fits if weights[name].sight is Sight.EXPERTS), None)
    if fused is not None or attributed.recipe.track == "adapter":
        which = (
            "an adapter's matrices" if fused is None else f"the expert {fused!r}, whose weight is fused with others'"
        )
        raise CheckpointError(
            f'the curvature "adam" knows no second moments of {which}; take another `recipe.curvature`, "ekfac" say'
        )
    names = {layer: f"{weights[layer].path}.weight" for layer in fits}
    roots = root_second_moments(folder, attributed.model, names.values())
    projections = {projection.layer.name: projection for projection in attributed.projections}
    found = {}
    for layer, fit in fits.items():
        root, projection = roots[names[layer]], projections[layer]
        # GPT-2's Conv1D has its inputs first, others their outputs.
        if type(weights[layer].module).__name__ != "Conv1D":
            root = root.mT
        along = along_axes(root, fit.bases, projection.p_in, projection.p_out)
        found[layer] = replace(fit, bases=replace(fit.bases, optimizer=along.to(fit.bases.a)))
    return found
