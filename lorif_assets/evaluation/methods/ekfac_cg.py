"""EK-FAC and conjugate gradients from whole gradients: what scores of this kind can reach, whatever is kept of an example."""

import time

import numpy as np

from lorif_assets.attribution.exact.exact_influence import exact_scores, solver_tokens
from lorif_assets.attribution.fitting.whole_gradients import WholeGradients, unprojected
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.data.tokens.tokenization import n_tokens
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.progress import Progress

_SOLVER = ExactScoreSettings(query_solver="cg", cg_rounds=2, cg_examples=256)


def conjugate_gradient_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by solving for each query on the Gauss-Newton matrix of a sample, preconditioned by EK-FAC of all examples.

    As exact re-ranking does with `exact_scores.query_solver = "cg"`, of every pair, at LoRIF's layers.

    Raises:
        LayerError: an operation of the model has no forward-mode derivative.
        LorifError: activations or gradients are not finite.
    """
    attributed, batch = unprojected(inputs.attributed), inputs.settings.batch
    examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
    order = np.random.default_rng(inputs.settings.evaluation.seed).permutation(len(examples))
    whole = WholeGradients(attributed, [examples[at] for at in order], None)
    started = time.monotonic()
    with Progress("EK-FAC of whole gradients", whole.fit_tokens, "tok") as progress:
        curvature = whole.curvature(batch, progress)
    fitted = time.monotonic()
    numbers = sum(d1 * d2 for d1, d2 in attributed.record.layer_shapes.values())
    at_once = max(1, batch.query_numbers // numbers)
    groups = [queries[first : first + at_once] for first in range(0, len(queries), at_once)]
    tokens = solver_tokens(whole, len(queries), _SOLVER) + len(groups) * n_tokens(examples)
    with Progress("EK-FAC + CG", tokens, "tok") as progress:
        found = [exact_scores(curvature, group, examples, _SOLVER, batch, progress).scores for group in groups]
    scores = np.concatenate([one.numpy() for one in found]).astype(np.float32)
    # Nothing is kept of an example; its gradients are computed again for each query set.
    return {"ekfac_cg": MethodScores(scores, 0.0, fitted - started, time.monotonic() - fitted, whole.inverse_bytes)}
