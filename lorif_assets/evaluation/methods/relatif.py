"""RelatIF (Barshan et al. 2020, arXiv 2003.11630): LoRIF's scores over the root of each example's self-influence.

Examples with large gradients lead many rankings; RelatIF asks how much an example says about a query for its size.
"""

import time
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.averaging_weights import checkpoint_weights
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint, averaged_attributions
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.evaluation.methods.lorif import lorif_scores
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

_FP32_BYTES = 4


def relatif_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score every pair from the lake; an example that has no factors, or no gradient, scores 0.

    If scores are averaged over checkpoints, so are self-influences, with the same weights; where scores are divided by
    their spread, self-influences are by their mean.

    Raises:
        MismatchError: factors, preconditioners and settings do not match.
    """
    import torch

    from lorif_assets.mathematics.scores.self_influence import relative_influence

    (lorif,) = inputs.scores_of(lorif_scores).values()
    recorded = StoredCheckpoint(inputs.lake, inputs.settings.recipe, inputs.attributed.record)
    checkpoints = averaged_attributions(inputs.settings, inputs.models, recorded)
    recipe = inputs.settings.recipe
    weights = checkpoint_weights(recipe, inputs.models, [one.record for one in checkpoints])
    divides = recipe.checkpoint_weights == "scaled" and len(checkpoints) > 1
    places = {name: at for at, name in enumerate(inputs.examples.ids)}
    total, count = torch.zeros(len(places), dtype=torch.float64), torch.zeros(len(places))
    started = time.monotonic()
    for checkpoint, weight in zip(checkpoints, weights, strict=True):
        own = self_influences(inputs, checkpoint)
        own = own / own.mean().clamp(min=torch.finfo(own.dtype).tiny) if divides else own
        for position, (name, _) in checkpoint.factors.example_ids(range(len(own))).items():
            if name in places:
                total[places[name]] += weight * own[position]
                count[places[name]] += weight
    scores = relative_influence(torch.from_numpy(lorif.scores), torch.where(count > 0, total / count, 0.0)).numpy()
    seconds = time.monotonic() - started
    stored = lorif.bytes_per_example + _FP32_BYTES
    return {"relatif": MethodScores(scores, stored, seconds, lorif.query_seconds, lorif.shared_bytes)}


def self_influences(inputs: MethodInputs, checkpoint: StoredCheckpoint) -> "Float[torch.Tensor, ' N']":
    """Return the self-influence of every stored example of a checkpoint, in FP64, in one pass over its factors."""
    import torch

    from lorif_assets.mathematics.scores.self_influence import self_influence

    stored, layers, device = checkpoint.factors, list(checkpoint.record.layer_shapes), inputs.attributed.device
    preconditioners = {layer: checkpoint.preconditioners.load(layer, device) for layer in layers}
    blocks = []
    with Progress("self-influence", stored.n_examples, "examples") as progress:
        for block in read_ahead(stored.blocks(layers, inputs.settings.batch.scan_rows, device)):
            shares = [self_influence(block[layer], preconditioners[layer]) for layer in layers]
            blocks.append(torch.stack(shares).sum(0).cpu())
            progress.advance(len(blocks[-1]))
    return torch.cat(blocks)
