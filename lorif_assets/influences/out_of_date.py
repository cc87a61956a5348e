"""Whether scores were computed from the training data and the queries that the lake holds now."""

import json

from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.attribution.stored.versions import averaged_version, score_version
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.stored_examples import stored_query_set_hashes, stored_shard_hashes
from lorif_assets.errors import MismatchError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SUMMARIES
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake


def changed_since(lake: Lake, recipe: Recipe, checkpoint: str, query_set: str = "") -> str | None:
    """Say that training data or queries changed since scores were computed; None where they did not, or nobody knows.

    Nobody does of scores under another recipe, of those of an encoder's proposals, and where an earlier version stored them.

    Args:
        lake: where all of it is stored.
        recipe: of the settings.
        checkpoint: whose scores they are.
        query_set: whose scores they are; without one, of a question of one's own, answered from the stored factors.
    """
    is_current = _are_current_scores(lake, recipe, checkpoint, query_set) if query_set else None
    if is_current is None:
        is_current = _are_current_factors(lake, checkpoint)
    if is_current:
        return None
    return (
        f"the training data or the queries changed since the scores at {checkpoint} were computed, and texts may be newer than "
        "scores"
    )


def up_to_date_by(checkpoint: str) -> str:
    """Return what brings the scores at a checkpoint up to date."""
    return f"run `lorif materialize --checkpoint {checkpoint}`"


def _are_current_factors(lake: Lake, checkpoint: str) -> bool:
    data = stored_shard_hashes(lake)
    factors = file_constants(lake, GRADIENT_FACTORS, ["shard", "shard_hash"], checkpoint=checkpoint)
    return all(data.get(shard) == of_factors for shard, of_factors in factors.iter_rows())


def _are_current_scores(lake: Lake, recipe: Recipe, checkpoint: str, query_set: str) -> bool | None:
    columns = ["recipe_hash", "computed_from", "averaged"]
    stored = lake.read(QUERY_SUMMARIES, columns, checkpoint=checkpoint, query_set=query_set).head(1)
    queries = stored_query_set_hashes(lake).get(query_set)
    if stored.is_empty() or queries is None:
        return None
    recipe_hash, computed_from, averaged = stored.row(0)
    if recipe_hash != recipe.score_hash or averaged is None or recipe.recalls:
        return None
    shards, weights = stored_shard_hashes(lake), json.loads(averaged)
    try:
        records = [checkpoint_record(lake, name, recipe) for name in weights]
    except MismatchError:
        return None
    bases = curvature_of(recipe).basis_versions
    versions = [score_version(recipe, one, shards, queries, bases(lake, one.name)) for one in records]
    return bool(averaged_version(recipe, versions, list(weights.values())) == computed_from)
