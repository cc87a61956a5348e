"""LoRIF as it is configured: scores from the stored factors and preconditioners."""

import time
from dataclasses import replace

import numpy as np
import polars as pl

from lorif_assets.attribution.checkpoints.checkpoint import (
    AttributedCheckpoint,
    StoredCheckpoint,
    averaged_attributions,
)
from lorif_assets.attribution.exact.score_noise import noise_shares
from lorif_assets.attribution.forecast.cost import stored_bytes_per_example
from lorif_assets.attribution.scores.score_checkpoint import score_every_example
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.progress import Progress


def lorif_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score every pair from the lake; an example that has no factors scores 0.

    Raises:
        MismatchError: factors, preconditioners and settings do not match.
    """
    settings, attributed = inputs.settings, inputs.attributed
    recorded = StoredCheckpoint(inputs.lake, settings.recipe, attributed.record)
    *earlier_checkpoints, stored = checkpoints = averaged_attributions(settings, inputs.models, recorded)
    checkpoint = AttributedCheckpoint(stored, attributed)
    started = time.monotonic()
    with Progress("lorif", stored.factors.n_examples, "examples") as progress:
        scored = score_every_example(
            checkpoint,
            earlier_checkpoints,
            inputs.queries.tokenized,
            inputs.models,
            top_k="all",
            batch=settings.batch,
            progress=progress,
            reason="every pair is compared",
        )
    seconds = time.monotonic() - started
    places = {name: at for at, name in enumerate(inputs.examples.ids)}
    matrix = np.zeros((len(inputs.queries.ids), len(places)), dtype=np.float32)
    # The table has all pairs of one query after the other, even if two sets share an id.
    for row, pairs in enumerate(scored.scores.iter_slices(stored.factors.n_examples)):
        known = pairs.filter(pl.col("example_id").is_in(places.keys()))
        matrix[row, known["example_id"].replace_strict(places).to_numpy()] = known["score"].to_numpy()
    bytes_per_example = sum(stored_bytes_per_example(one.record, settings.recipe) for one in checkpoints)
    curvature = curvature_of(settings.recipe)
    shared = sum(curvature.cost(list(one.record.layer_shapes.values())).stored_bytes for one in checkpoints)
    return {"lorif": MethodScores(matrix, bytes_per_example, None, seconds, shared)}


def shrunk_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Return posterior means of LoRIF's scores, by the noise of each query set, measured on a sample of its pairs.

    Raises:
        MismatchError: factors, preconditioners and settings do not match.
        LorifError: the noise cannot be measured.
    """
    from lorif_assets.mathematics.scores.shrinkage import shrunk

    (lorif,) = inputs.scores_of(lorif_scores).values()
    checkpoint = AttributedCheckpoint(
        StoredCheckpoint(inputs.lake, inputs.settings.recipe, inputs.attributed.record), inputs.attributed
    )
    started = time.monotonic()
    shares = noise_shares(
        checkpoint, {name: queries.tokenized for name, queries in inputs.query_sets.items()}, inputs.settings.batch
    )
    matrix, first = np.empty_like(lorif.scores), 0
    for name, queries in inputs.query_sets.items():
        rows = slice(first, first + len(queries.ids))
        matrix[rows], first = shrunk(lorif.scores[rows], shares[name]), rows.stop
    seconds = lorif.query_seconds + time.monotonic() - started
    return {"lorif_shrunk": replace(lorif, scores=matrix, query_seconds=seconds)}
