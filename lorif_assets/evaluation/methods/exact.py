"""LoRIF with its leading examples ranked again by whole gradients, as `exact_scores` stores them."""

import numpy as np
import polars as pl
from jaxtyping import Float32

from lorif_assets.attribution.scores.score_rows import HIGHEST, LOWEST
from lorif_assets.attribution.scores.stored_rankings import stored_score_version
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.evaluation.methods.lorif import lorif_scores
from lorif_assets.lake.attribution_tables import EXACT_SCORES


def exact_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score every pair from the lake, and deal the scores of each query's re-ranked examples out again in exact order.

    The examples that were not ranked again keep their scores, so that queries can be added up as those of LoRIF are.

    Raises:
        SettingsError: `exact_scores.enabled` is not set.
        MismatchError: there are no exact scores that belong to the stored scores; or factors, preconditioners and settings do
            not match.
    """
    if not inputs.settings.exact_scores.enabled:
        raise SettingsError(
            "the method `exact` of `evaluation.methods` is LoRIF ranked again by whole gradients: set `exact_scores.enabled`, "
            "or take it out of `evaluation.methods`"
        )
    stored = {query_set: _stored(inputs, query_set) for query_set in inputs.query_sets}
    (lorif,) = inputs.scores_of(lorif_scores).values()
    scores = lorif.scores.copy()
    places = {name: at for at, name in enumerate(inputs.examples.ids)}
    row = 0
    for query_set, queries in inputs.query_sets.items():
        by_query = stored[query_set].partition_by("query_id", as_dict=True)
        for query_id in queries.ids:
            if (query_id,) in by_query:
                scores[row] = ranked_again(scores[row], by_query[query_id,], places)
            row += 1
    return {"exact": MethodScores(scores, lorif.bytes_per_example, None, lorif.query_seconds)}


def ranked_again(
    scores: Float32[np.ndarray, " N"], listed: pl.DataFrame, places: dict[str, int]
) -> Float32[np.ndarray, " N"]:
    """Return a query's scores with those of listed examples dealt out again by their ranks.

    Args:
        scores: of all examples.
        listed: side, rank and example_id; of both sides, or of few examples, one may be on both, and counts for the first.
        places: of examples in the scores.
    """
    dealt, seen = scores.copy(), set[int]()
    for side in (HIGHEST, LOWEST):
        ranked = listed.filter(pl.col("side") == side).sort("rank")["example_id"]
        at = [places[name] for name in ranked if name in places and places[name] not in seen]
        ascending = np.sort(scores[at])
        dealt[at] = ascending[::-1] if side == HIGHEST else ascending
        seen.update(at)
    return dealt


def _stored(inputs: MethodInputs, query_set: str) -> pl.DataFrame:
    lake, checkpoint = inputs.lake, inputs.attributed.record.name
    version = inputs.settings.exact_scores.version(stored_score_version(lake, checkpoint, query_set))
    columns = ["query_id", "side", "rank", "example_id", "computed_from"]
    rows = lake.read(EXACT_SCORES, columns, checkpoint=checkpoint, query_set=query_set)
    found = rows.filter(pl.col("computed_from") == version)
    if found.is_empty():
        raise MismatchError(
            f"the lake has no exact scores of {query_set!r} at {checkpoint!r} that belong to the scores and settings of now; "
            "materialize `exact_scores` first"
        )
    return found
