"""The tables of the evaluation: retrained models' losses, every method's scores, and the resulting figures."""

import pyarrow as pa

from lorif_assets.lake.table_schema import table

SUBSETS = table(
    "subsets",
    ("subset",),
    "A random subset of the training data, and the examples in it.",
    subset=(pa.string(), "number of the subset"),
    example_ids=(pa.large_list(pa.string()), "of the training examples that the subset has"),
    n_examples=pa.int64(),
)

SUBSET_LOSSES = table(
    "subset_losses",
    ("subset", "seed"),
    "A query's loss under the model retrained on a subset.",
    subset=(pa.string(), "number of the subset"),
    seed=(pa.string(), "a number; a string because it is a partition column"),
    query_set=pa.string(),
    query_id=pa.string(),
    loss=(pa.float32(), "of the query under the model retrained on the subset; summed over target tokens, nats"),
    n_target_tokens=pa.int32(),
    seconds=(pa.float64(), "that the retraining took; null for ground truth from elsewhere"),
    computed_from=(pa.string(), "hash of members, training recipe, seed and query sets"),
    trainer_hash=(
        pa.string(),
        "hash of the training recipe's file when the training began; null where it has none, and before it was recorded",
    ),
)

EVALUATED_SCORES = table(
    "evaluated_scores",
    ("checkpoint", "query_set", "method"),
    "The score of a query and a training example by one method.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    method=pa.string(),
    query_id=pa.string(),
    example_id=pa.string(),
    score=(pa.float32(), "of every pair; larger: the example speaks more for the query"),
    computed_from=pa.string(),
)

METHOD_COSTS = table(
    "method_costs",
    ("checkpoint", "query_set", "method"),
    "What a method keeps per example, and the seconds it took.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    method=pa.string(),
    bytes_per_example=(pa.float64(), "kept, so that a new query needs no pass over the data"),
    setup_seconds=(pa.float64(), "on the training examples, once; null where it was spent elsewhere"),
    query_seconds=(pa.float64(), "on this query set"),
    n_examples=pa.int64(),
    n_queries=(pa.int64(), "number of queries"),
    computed_from=pa.string(),
    shared_bytes=(pa.float64(), "kept once for all examples: bases, curvature, axes; null where stored without"),
)

EVALUATION_FIGURES = table(
    "evaluation_figures",
    ("checkpoint", "query_set", "evaluation"),
    "A figure with its interval, of a method or of one query.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    evaluation=(pa.string(), "the asset that measured it"),
    metric=(pa.string(), "what was measured"),
    statistic=(pa.string(), "mean: over queries | query: of one | difference: the reference's mean minus the method's"),
    method=(pa.string(), "null for what concerns the ground truth itself"),
    query_id=(pa.string(), "null except for the statistic of one query"),
    value=(pa.float64(), "the figure"),
    low=(pa.float64(), "lower end of its 95 % interval"),
    high=(pa.float64(), "upper end"),
    computed_from=pa.string(),
)

REMOVAL_LOSSES = table(
    "removal_losses",
    ("checkpoint", "query_set", "removal"),
    "A query's loss after retraining without proponents.",
    checkpoint=(pa.string(), "whose scores chose what was removed"),
    query_set=pa.string(),
    removal=(
        pa.string(),
        '<method>-<removed examples>-seed-<seed>, with "from-<rank>" where they are not the first; "none-0-seed-<seed>" is '
        "retraining on everything",
    ),
    method=pa.string(),
    n_removed=(pa.int64(), "proponents of the whole query set that were removed before retraining"),
    seed=(pa.int64(), "of the retraining"),
    query_id=pa.string(),
    loss=(pa.float32(), "after retraining without them; summed over target tokens, nats"),
    n_target_tokens=pa.int32(),
    seconds=pa.float64(),
    computed_from=pa.string(),
    first_removed=(pa.int64(), "proponents before those that were removed; null, as 0, where stored without"),
)

SELECTION_LOSSES = table(
    "selection_losses",
    ("checkpoint", "query_set", "selection"),
    "A query's loss after training on proponents alone.",
    checkpoint=(pa.string(), "whose scores chose what was trained on"),
    query_set=pa.string(),
    selection=(pa.string(), "<method>-<selected examples>-seed-<seed>"),
    method=pa.string(),
    n_selected=(pa.int64(), "proponents of the whole query set that were trained on"),
    seed=(pa.int64(), "of the training"),
    query_id=pa.string(),
    loss=(pa.float32(), "after training on them; summed over target tokens, nats"),
    n_target_tokens=pa.int32(),
    seconds=pa.float64(),
    computed_from=pa.string(),
)

RECIPE_TRIALS = table(
    "recipe_trials",
    ("checkpoint", "query_set"),
    "A recipe that `lorif tune` tried.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    recipe=(pa.string(), "JSON of the recipe fields that were tried"),
    curvature=(pa.string(), "as the setting of this name"),
    projection_factor=(pa.int32(), "null where a largest width takes its place"),
    rank=(pa.int32(), "null where a byte budget spread it over the layers"),
    r=(pa.int32(), "as the setting of this name"),
    damping=(pa.float64(), "as the setting of this name"),
    curvature_form=(pa.string(), "as the setting of this name"),
    factor_dtype=(pa.string(), "as the setting of this name"),
    bytes_per_example=(pa.float64(), "of the factors, across all layers"),
    n_examples=(pa.int64(), "of the sample"),
    lds=(pa.float64(), "linear datamodeling score, mean over queries; null without ground truth"),
    lds_low=(pa.float64(), "lower end of its 95 % interval"),
    lds_high=(pa.float64(), "upper end"),
    agreement=(pa.float64(), "mean Spearman correlation with the dense inverse at the same projections"),
    tail_patch=(
        pa.float64(),
        "mean change of the completions' log-probability per token; null where the LDS was measured",
    ),
    seconds=pa.float64(),
    computed_from=pa.string(),
)

EVALUATION_REPORTS = table(
    "evaluation_reports",
    ("checkpoint", "query_set"),
    "Where the page of an evaluation is.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    uri=pa.string(),
    computed_from=(pa.string(), "hash of all that the page shows"),
    page=(
        pa.string(),
        "checksum of the page and its path in the lake, as `xxhsum -H2` prints them; null where stored without",
    ),
)
