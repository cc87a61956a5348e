"""Assets of a checkpoint and query sets whose rows belong to scores that are stored: compute, store and commit set by set."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from lorif_assets.assets.attribution_asset import Materializations
from lorif_assets.assets.partition_run import Failures, PartitionRun
from lorif_assets.attribution.scores.stored_rankings import stored_score_version
from lorif_assets.errors import LorifError
from lorif_assets.lake.table_schema import TableSchema

Computed = tuple[pl.DataFrame, Mapping[str, Any]]
"""Rows without the columns that are the same for all of a partition, and the figures of its materialization."""


def beside_scores(
    run: PartitionRun,
    table: TableSchema,
    checkpoint: str,
    query_sets: Mapping[str, str],
    version_of: Callable[[str], str],
    compute: Callable[[str], Computed],
) -> Materializations:
    """Compute what belongs to the stored scores of query sets, and store and commit each set's as soon as it is there.

    Args:
        run: of the asset.
        table: that the rows are of.
        checkpoint: its name.
        query_sets: partition keys by query set.
        version_of: the version of rows beside scores of a version.
        compute: the rows of a query set.

    Raises:
        LorifError: a query set failed; the others are stored.
    """
    failures = Failures(run.log, "query sets", len(query_sets), "the other query sets")
    for query_set, key in query_sets.items():
        try:
            # Read first: rows beside scores that change meanwhile are out of date.
            scores = stored_score_version(run.lake, checkpoint, query_set)
            frame, figures = compute(query_set)
        except LorifError as error:
            failures.add(key, error)
            continue
        partition, version = {"checkpoint": checkpoint, "query_set": query_set}, version_of(scores)
        constants = {
            **partition,
            "recipe_hash": run.settings.recipe.score_hash,
            "computed_from": version,
            "scores_from": scores,
        }
        rows = frame.with_columns(**{column: pl.lit(value) for column, value in constants.items()})
        run.lake.replace(table, partition, rows.select(table.columns.names).to_arrow())
        yield from run.commit(key, version, {"dagster/row_count": frame.height, **figures})
    failures.raise_cause_or_all()
