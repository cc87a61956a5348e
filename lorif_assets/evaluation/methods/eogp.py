"""EOGP (arXiv 2609.37842), re-implemented: one bit for each axis of half-whitened gradients, at LoRIF's own bytes.

Its axes are those of a PCA that has to be kept beside the codes, D numbers for each axis; those of EOGP-R are random.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lorif_assets.attribution.fitting.whole_gradients import WholeGradients, inverse_bytes, unprojected
from lorif_assets.attribution.forecast.cost import stored_bytes_per_example
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.methods.dense_gradients import dense_gradients, dense_groups, refuse_large_layers
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.mathematics.evaluation.one_bit_codes import (
    PrincipalAxes,
    axes_by_layer,
    code_bytes,
    code_scores,
    energy,
    half_whitened,
    halves,
    random_coordinates,
)
from lorif_assets.progress import Progress

_FP16_BYTES = 2
_COPIES = 1.25
"""Half-whitened gradients, and a quarter for what stands beside them: a batch on its way, dot products, random axes."""
_NAMES = ("eogp", "eogp_crossfit", "eogp_random")
_REMEDY = f"take {', '.join(_NAMES)} out of `evaluation.methods`: they hold whole gradients"


def eogp_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by EOGP, its cross-fit and EOGP-R, at LoRIF's layers, without projection.

    `eogp`: axes of a random half of the examples; so half of them are coded along axes that know them. `eogp_crossfit`: each
    half along the axes of the other, at twice the shared bytes. EK-FAC is fitted to all examples.

    Raises:
        SettingsError: the gradients of one layer would not fit in memory, or LoRIF's bytes do not pay for a byte of every
            layer.
    """
    attributed, batch = unprojected(inputs.attributed), inputs.settings.batch
    examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
    refuse_large_layers(attributed, len(examples), _COPIES, _REMEDY)
    shapes = attributed.record.layer_shapes
    started = time.monotonic()
    whole = WholeGradients(attributed, examples, None)
    with Progress("EK-FAC of whole gradients", whole.fit_tokens, "tok") as progress:
        inverses = whole.curvature(batch, progress).inverses
    split = halves(len(examples), inputs.settings.evaluation.seed)
    budget = stored_bytes_per_example(inputs.attributed.record, inputs.attributed.fitted_recipe)
    energies = {layer: energy(inverse) for layer, inverse in inverses.items()}
    dense = {layer: d1 * d2 for layer, (d1, d2) in shapes.items()}
    try:
        principal = axes_by_layer(
            energies, {layer: min(width, len(split[0])) for layer, width in dense.items()}, budget
        )
        random = axes_by_layer(energies, dense, budget)
    except ValueError as error:
        raise SettingsError(
            f"EOGP cannot be held against LoRIF at its bytes: {error}. Raise `recipe.bytes_per_example`, or take "
            f"{', '.join(_NAMES)} out of `evaluation.methods`"
        ) from error
    coded = _Coded(split, principal, random, inputs.settings.evaluation.seed)
    scores = {name: torch.zeros(len(queries), len(examples)) for name in _NAMES}

    def whitened(layer: str, gradients: Float[Tensor, "m d1 d2"]) -> Float[Tensor, "m d1 d2"]:
        return half_whitened(inverses[layer], gradients).view_as(gradients)

    with Progress("EOGP", len(shapes), "layers") as progress:
        for group in dense_groups(shapes, len(examples)):
            rows, asked = (
                dense_gradients(attributed, group, chosen, batch, whitened) for chosen in (examples, queries)
            )
            for layer in group:
                z, z_q = (gradients.pop(layer).flatten(1).to(attributed.device) for gradients in (rows, asked))
                for name, share in coded.scores(layer, z_q, z).items():
                    scores[name] += share.cpu()
                progress.advance(1)
    seconds = time.monotonic() - started
    bases = inverse_bytes(shapes.values())
    axes = sum(principal[layer] * width for layer, width in dense.items()) * _FP16_BYTES
    return {
        "eogp": MethodScores(scores["eogp"].numpy(), code_bytes(principal), None, seconds, bases + axes),
        "eogp_crossfit": MethodScores(
            scores["eogp_crossfit"].numpy(), code_bytes(principal), None, seconds, bases + 2 * axes
        ),
        "eogp_random": MethodScores(scores["eogp_random"].numpy(), code_bytes(random), None, seconds, bases),
    }


@dataclass(frozen=True)
class _Coded:
    """How the layers are coded: the halves of the examples, and how many axes of either kind each layer has."""

    split: tuple[Int64[Tensor, " a"], Int64[Tensor, " b"]]
    principal: Mapping[str, int]
    random: Mapping[str, int]
    seed: int

    def scores(
        self, layer: str, queries: Float[Tensor, "Q D"], examples: Float[Tensor, "n D"]
    ) -> dict[str, Float[Tensor, "Q n"]]:
        """Return one layer's share of the scores of half-whitened queries and examples."""
        gram, products = examples @ examples.mT, queries @ examples.mT
        fitted = [PrincipalAxes.fit(gram[half][:, half], self.principal[layer]) for half in self.split]
        crossed = torch.empty_like(products)
        for half, other, of_other in zip(self.split, reversed(self.split), reversed(fitted), strict=True):
            crossed[:, half] = code_scores(
                of_other.coordinates(products[:, other]), of_other.coordinates(gram[half][:, other])
            )
        first = self.split[0]
        random = (random_coordinates(rows, self.random[layer], layer, self.seed) for rows in (queries, examples))
        return {
            "eogp": code_scores(fitted[0].coordinates(products[:, first]), fitted[0].coordinates(gram[:, first])),
            "eogp_crossfit": crossed,
            "eogp_random": code_scores(*random),
        }
