"""Influence and shared words together: sources that either finds, ranked by reciprocal rank fusion."""

import numpy as np

from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.evaluation.methods.lexical import bm25_scores
from lorif_assets.evaluation.methods.relatif import relatif_scores
from lorif_assets.mathematics.scores.rank_fusion import reciprocal_rank_fusion


def hybrid_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by the ranks that relative influence and BM25 give.

    Raises:
        MismatchError: factors, preconditioners and settings do not match.
    """
    parts = [*inputs.scores_of(relatif_scores).values(), *inputs.scores_of(bm25_scores).values()]
    fused = MethodScores(
        scores=reciprocal_rank_fusion([part.scores for part in parts]).astype(np.float32),
        bytes_per_example=sum(part.bytes_per_example for part in parts),
        setup_seconds=sum(part.setup_seconds or 0.0 for part in parts),
        query_seconds=sum(part.query_seconds for part in parts),
        shared_bytes=sum(part.shared_bytes for part in parts),
    )
    return {"hybrid": fused}
