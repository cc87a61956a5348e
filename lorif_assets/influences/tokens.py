"""The stored shares of single tokens in the score of one pair of query and example."""

import polars as pl

from lorif_assets.attribution.stored_rankings import stored_score_version
from lorif_assets.lake.attribution_tables import TOKEN_SCORES
from lorif_assets.lake.lake import Lake


def stored_tokens(
    lake: Lake, checkpoint: str, query_set: str, query_id: str, shard: str, example_id: str
) -> pl.DataFrame:
    """Return a pair's rows of `token_scores` that belong to the scores that are stored; no row where there are none."""
    rows = lake.read(
        TOKEN_SCORES, checkpoint=checkpoint, query_set=query_set, query_id=query_id, shard=shard, example_id=example_id
    )
    return rows.filter(pl.col("scores_from") == stored_score_version(lake, checkpoint, query_set))
