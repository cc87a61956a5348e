"""The tables of the evaluation: retrained models' losses, every method's scores, and what came of them."""

import pyarrow as pa

from lorif_assets.lake.table_schema import TableSchema, columns

SUBSETS = TableSchema(
    "subsets",
    ("subset",),
    columns(
        subset=pa.string(),
        example_ids=pa.large_list(pa.string()),  # of the training examples that the subset has
        n_examples=pa.int64(),
    ),
)

SUBSET_LOSSES = TableSchema(
    "subset_losses",
    ("subset", "seed"),
    columns(
        subset=pa.string(),
        seed=pa.string(),  # a number; a string because it is a partition column
        query_set=pa.string(),
        query_id=pa.string(),
        loss=pa.float32(),  # of the query under the model retrained on the subset; summed over target tokens, nats
        n_target_tokens=pa.int32(),
        seconds=pa.float64(),  # that the retraining took; null for ground truth from elsewhere
        computed_from=pa.string(),  # hash of members, training recipe, seed and query sets
    ),
)

EVALUATED_SCORES = TableSchema(
    "evaluated_scores",
    ("checkpoint", "query_set", "method"),
    columns(
        checkpoint=pa.string(),
        query_set=pa.string(),
        method=pa.string(),
        query_id=pa.string(),
        example_id=pa.string(),
        score=pa.float32(),  # of every pair; larger: the example speaks more for the query
        computed_from=pa.string(),
    ),
)

METHOD_COSTS = TableSchema(
    "method_costs",
    ("checkpoint", "query_set", "method"),
    columns(
        checkpoint=pa.string(),
        query_set=pa.string(),
        method=pa.string(),
        bytes_per_example=pa.float64(),  # kept, so that a new query need not see the data again
        setup_seconds=pa.float64(),  # on the training examples, once; null where it was spent elsewhere
        query_seconds=pa.float64(),  # on this query set
        n_examples=pa.int64(),
        n_queries=pa.int64(),
        computed_from=pa.string(),
    ),
)

EVALUATION_FIGURES = TableSchema(
    "evaluation_figures",
    ("checkpoint", "query_set", "evaluation"),
    columns(
        checkpoint=pa.string(),
        query_set=pa.string(),
        evaluation=pa.string(),  # the asset that measured it
        metric=pa.string(),
        statistic=pa.string(),  # mean: over queries | query: of one | difference: the reference's mean minus the method's
        method=pa.string(),  # null for what concerns the ground truth itself
        query_id=pa.string(),  # null but for the statistic of one query
        value=pa.float64(),
        low=pa.float64(),  # 95 % interval
        high=pa.float64(),
        computed_from=pa.string(),
    ),
)

REMOVAL_LOSSES = TableSchema(
    "removal_losses",
    ("checkpoint", "query_set", "removal"),
    columns(
        checkpoint=pa.string(),  # whose scores chose what was removed
        query_set=pa.string(),
        removal=pa.string(),  # <method>-<removed examples>-seed-<seed>; "none-0-seed-<seed>" is retraining on everything
        method=pa.string(),
        n_removed=pa.int64(),  # proponents of the whole query set that were removed before retraining
        seed=pa.int64(),
        query_id=pa.string(),
        loss=pa.float32(),  # after retraining without them; summed over target tokens, nats
        n_target_tokens=pa.int32(),
        seconds=pa.float64(),
        computed_from=pa.string(),
    ),
)

RECIPE_TRIALS = TableSchema(
    "recipe_trials",
    ("checkpoint", "query_set"),
    columns(
        checkpoint=pa.string(),
        query_set=pa.string(),
        recipe=pa.string(),  # JSON of the recipe fields that were tried
        curvature=pa.string(),
        projection_factor=pa.int32(),  # null where a largest width takes its place
        rank=pa.int32(),  # null where a byte budget spread it over the layers
        r=pa.int32(),
        damping=pa.float64(),
        curvature_form=pa.string(),
        factor_dtype=pa.string(),
        bytes_per_example=pa.float64(),
        n_examples=pa.int64(),  # of the sample
        lds=pa.float64(),  # mean over queries, with its 95 % interval; null without ground truth
        lds_low=pa.float64(),
        lds_high=pa.float64(),
        agreement=pa.float64(),  # mean Spearman correlation with the dense inverse at the same projections
        tail_patch=pa.float64(),  # mean change of the completions' log-probability per token; null where LDS tells more
        seconds=pa.float64(),
        computed_from=pa.string(),
    ),
)

EVALUATION_REPORTS = TableSchema(
    "evaluation_reports",
    ("checkpoint", "query_set"),
    columns(
        checkpoint=pa.string(),
        query_set=pa.string(),
        uri=pa.string(),
        computed_from=pa.string(),  # hash of all that the page shows
    ),
)
