"""The lake's tables: their columns, types and partition columns, declared once and checked on every write.

`gradient_factors` is open-ended: after the columns named here it has one `large_binary` column per tracked layer, named
by the layer's module path, that holds the bytes of each example's factors in the layout that `factor_codec` names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class TableSchema:
    """Columns and partition columns of one Delta table.

    `open_columns` is the type of further columns that a table may have (one per layer), or None for a closed table.
    """

    name: str
    partition_by: tuple[str, ...]
    columns: pa.Schema
    open_columns: pa.DataType | None = None


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


# The content of one example, in whichever of the four formats the source has; the other columns are null.
EXAMPLE_CONTENT: Mapping[str, pa.DataType] = {
    "format": pa.string(),  # text | prompt_completion | messages | input_ids
    "text": pa.string(),
    "prompt": pa.string(),
    "completion": pa.string(),
    "messages": pa.string(),  # JSON
    "input_ids": pa.list_(pa.int32()),
    "labels": pa.list_(pa.int32()),
    "content_hash": pa.string(),
    "metadata": pa.string(),  # JSON object
}

TRAINING_EXAMPLES = TableSchema(
    "training_examples",
    ("shard",),
    _schema(
        shard=pa.string(),
        example_id=pa.string(),
        row=pa.int64(),  # position in the source's shard, rejected rows counted
        **EXAMPLE_CONTENT,
        shard_hash=pa.string(),
        source_version=pa.string(),  # of the file it was read from: whether to read it again
    ),
)

QUERY_EXAMPLES = TableSchema(
    "query_examples",
    ("query_set",),
    _schema(
        query_set=pa.string(),
        query_id=pa.string(),
        row=pa.int64(),
        **EXAMPLE_CONTENT,
        query_set_hash=pa.string(),
        source_version=pa.string(),
    ),
)

REJECTED = TableSchema(
    "rejected",
    ("stage", "part"),
    _schema(
        stage=pa.string(),  # the asset that set the row aside
        part=pa.string(),  # the partition key of that asset
        example_id=pa.string(),
        row=pa.int64(),
        reason=pa.string(),
        excerpt=pa.string(),  # the beginning of the row, for recognising it
    ),
)

CHECKPOINTS = TableSchema(
    "checkpoints",
    ("checkpoint",),
    _schema(
        checkpoint=pa.string(),
        uri=pa.string(),
        step=pa.int64(),
        weights_hash=pa.string(),
        tokenizer_hash=pa.string(),
        model_type=pa.string(),
        n_parameters=pa.int64(),
        layers=pa.string(),  # JSON: [{"layer", "d_in", "d_out", "d1", "d2"}], of the layers that the recipe tracks
        recipe_hash=pa.string(),
        files_version=pa.string(),  # sizes and times of the files: whether to hash them again
    ),
)

GRADIENT_FACTORS = TableSchema(
    "gradient_factors",
    ("checkpoint", "shard"),
    _schema(
        checkpoint=pa.string(),
        shard=pa.string(),
        example_id=pa.string(),
        row=pa.int64(),
        loss=pa.float32(),  # summed over the target tokens, nats
        n_target_tokens=pa.int32(),
        truncated=pa.bool_(),
        recipe_hash=pa.string(),
        weights_hash=pa.string(),
        tokenizer_hash=pa.string(),
        projection=pa.string(),  # fingerprint of the projections
        shard_hash=pa.string(),
        factor_codec=pa.string(),
        bases=pa.string(),  # fingerprint of the K-FAC bases that gradients were whitened in; empty without whitening
        fisher=pa.string(),  # folder of the shard's sums of squared rotated gradients, one safetensors file per layer
    ),
    open_columns=pa.large_binary(),
)

KFAC_BASES = TableSchema(
    "kfac_bases",
    ("checkpoint",),
    _schema(
        checkpoint=pa.string(),
        layer=pa.string(),
        d1=pa.int32(),
        d2=pa.int32(),
        rank=pa.int32(),  # components that an example keeps in this layer
        bytes_per_example=pa.int64(),  # of those components
        kept_energy=pa.float64(),  # share of whitened gradients' squared norm that they hold before encoding, in a sample
        n_examples=pa.int64(),
        n_tokens=pa.int64(),
        labels=pa.string(),  # data | model
        half_agreement=pa.float64(),  # how well bases of one half of the sample diagonalise the other half's, 0 to 1
        uri=pa.string(),  # safetensors file, relative to the lake root: q_in, q_out, a, b
        fingerprint=pa.string(),  # hash of the bases and ranks of all layers of the checkpoint
        sample_hash=pa.string(),  # of the examples that they were fitted to
        version=pa.string(),  # hash of what asks for a new fit: recipe and weights, not the data
        recipe_hash=pa.string(),
        weights_hash=pa.string(),
        projection=pa.string(),
    ),
)

SVD_PRECONDITIONERS = TableSchema(
    "svd_preconditioners",
    ("checkpoint", "layer"),
    _schema(
        checkpoint=pa.string(),
        layer=pa.string(),
        d1=pa.int32(),
        d2=pa.int32(),
        r=pa.int32(),
        eigenvalues=pa.list_(pa.float64()),  # largest first; up to ten beyond r
        trace=pa.float64(),
        damping=pa.float64(),
        captured_energy=pa.float64(),  # sum of the leading eigenvalues / trace
        basis_version=pa.string(),  # "": as the recipe makes it; else the hash of the data it was refined on
        fitted_energy=pa.float64(),  # captured_energy when the basis was fitted
        added_energy=pa.float64(),  # sum of squared gradient norms added since
        added_energy_captured=pa.float64(),  # its part in the eigenvectors of before it was added
        needs_refine=pa.bool_(),  # whether that part is below curvature.refine_below times fitted_energy
        n_examples=pa.int64(),
        state_uri=pa.string(),  # safetensors file, relative to the lake root
        ledger=pa.string(),  # JSON: {shard: {shard_hash, path, rows}} of the data that the state holds
        ledger_hash=pa.string(),
        state_version=pa.string(),  # hash of what basis and image depend on besides the data
        version=pa.string(),  # hash of all that the row is computed from
        recipe_hash=pa.string(),
        weights_hash=pa.string(),
        projection=pa.string(),
    ),
)

EKFAC_PRECONDITIONERS = TableSchema(
    "ekfac_preconditioners",
    ("checkpoint", "layer"),
    _schema(
        checkpoint=pa.string(),
        layer=pa.string(),
        d1=pa.int32(),
        d2=pa.int32(),
        eigenvalues=pa.list_(pa.float64()),  # the largest entries of Lam, at most 256
        trace=pa.float64(),  # sum of Lam
        damping=pa.float64(),
        n_examples=pa.int64(),
        state_uri=pa.string(),  # safetensors file, relative to the lake root: `squares`, sums of R * R in FP64
        ledger=pa.string(),  # JSON: {shard: {shard_hash, path, rows}} of the data that the sums hold
        ledger_hash=pa.string(),
        state_version=pa.string(),  # hash of what the sums depend on besides the data
        version=pa.string(),  # hash of all that the row is computed from
        recipe_hash=pa.string(),
        weights_hash=pa.string(),
        projection=pa.string(),
        bases=pa.string(),  # fingerprint of the K-FAC bases
    ),
)

QUERY_SCORES = TableSchema(
    "query_scores",
    ("checkpoint", "query_set"),
    _schema(
        checkpoint=pa.string(),
        query_set=pa.string(),
        query_id=pa.string(),
        side=pa.string(),  # highest: proponents | lowest: opponents | all: every pair was asked for
        rank=pa.int32(),  # from 1; the most extreme first
        example_id=pa.string(),
        shard=pa.string(),
        score=pa.float32(),
        recipe_hash=pa.string(),
        computed_from=pa.string(),  # hash of weights, query set, ledger and recipe
    ),
)

QUERY_SUMMARIES = TableSchema(
    "query_summaries",
    ("checkpoint", "query_set"),
    _schema(
        checkpoint=pa.string(),
        query_set=pa.string(),
        query_id=pa.string(),
        loss=pa.float32(),
        n_target_tokens=pa.int32(),
        n_examples=pa.int64(),
        score_mean=pa.float64(),
        score_std=pa.float64(),
        score_abs_sum=pa.float64(),
        positive_sum=pa.float64(),
        top_10_share=pa.float64(),  # share of the positive scores' sum in the 10 highest
        top_100_share=pa.float64(),
        recipe_hash=pa.string(),
        computed_from=pa.string(),
    ),
)

SCORE_SCANS = TableSchema(
    "score_scans",
    ("checkpoint", "query_set"),
    _schema(
        checkpoint=pa.string(),
        query_set=pa.string(),
        state_uri=pa.string(),  # safetensors file, relative to the lake root: extremes, moments, scores of the probe
        ledger=pa.string(),  # JSON: {shard: {shard_hash, rows}} of what was scanned
        scan_version=pa.string(),  # hash of what scores depend on besides the shards
    ),
)

REPORTS = TableSchema(
    "reports",
    ("checkpoint", "query_set"),
    _schema(
        checkpoint=pa.string(),
        query_set=pa.string(),
        uri=pa.string(),
        computed_from=pa.string(),  # that of the scores it shows
    ),
)

CHECKPOINT_COMPARISONS = TableSchema(
    "checkpoint_comparisons",
    ("query_set",),
    _schema(
        query_set=pa.string(),
        query_id=pa.string(),
        from_checkpoint=pa.string(),
        to_checkpoint=pa.string(),  # the next compared one; columns below are null if it alone was scored for the query
        rank_biased_overlap=pa.float64(),  # of the proponents, 0 to 1
        overlap_at_10=pa.float64(),  # share of the ten leading proponents that stayed among them
        entered=pa.string(),  # JSON list of example ids, by their new rank
        left=pa.string(),  # JSON list of example ids, by their old rank
        loss_per_token_from=pa.float64(),  # nats
        loss_per_token_to=pa.float64(),  # never null
        recipe_hash=pa.string(),
        computed_from=pa.string(),  # hash of both checkpoints' scores
    ),
)

SUBSETS = TableSchema(
    "subsets",
    ("subset",),
    _schema(
        subset=pa.string(),
        example_ids=pa.large_list(pa.string()),  # of the training examples that the subset has
        n_examples=pa.int64(),
    ),
)

SUBSET_LOSSES = TableSchema(
    "subset_losses",
    ("subset", "seed"),
    _schema(
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
    _schema(
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
    _schema(
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
    _schema(
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
    _schema(
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
    _schema(
        checkpoint=pa.string(),
        query_set=pa.string(),
        recipe=pa.string(),  # JSON of the recipe fields that were tried
        curvature=pa.string(),
        projection_factor=pa.int32(),
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
    _schema(
        checkpoint=pa.string(),
        query_set=pa.string(),
        uri=pa.string(),
        computed_from=pa.string(),  # hash of all that the page shows
    ),
)

INFLUENCE_TARGETS = TableSchema(
    "influence_targets",
    ("checkpoint",),
    _schema(
        checkpoint=pa.string(),
        role=pa.string(),  # anchor | pool
        split=pa.string(),  # distil | held_out
        position=pa.int32(),  # among the texts of its role
        source=pa.string(),  # query set or shard
        example_id=pa.string(),
        content_hash=pa.string(),
        text=pa.string(),  # as the encoder reads it
        targets=pa.list_(pa.float32()),  # of an anchor: the influence of each pool text, by position; else null
        teacher=pa.string(),
        corpus_size=pa.int64(),  # examples that there were to draw from
        seconds=pa.float64(),  # that the gradients took
        recipe_hash=pa.string(),
        weights_hash=pa.string(),
        tokenizer_hash=pa.string(),
        computed_from=pa.string(),
    ),
)

INFLUCODER_ENCODERS = TableSchema(
    "influcoder_encoders",
    ("checkpoint",),
    _schema(
        checkpoint=pa.string(),
        uri=pa.string(),  # ZIP file of a sentence-transformers model, relative to the lake root
        base=pa.string(),  # the setting it was first trained from
        started_from=pa.string(),  # the checkpoint whose encoder it went on from, or null
        width=pa.int32(),
        encoder_hash=pa.string(),  # of the weights
        steps=pa.int32(),
        final_loss=pa.float64(),  # mean over the last epoch
        seconds=pa.float64(),
        recipe_hash=pa.string(),
        computed_from=pa.string(),
    ),
)

INFLUENCE_EMBEDDINGS = TableSchema(
    "influence_embeddings",
    ("checkpoint", "shard"),
    _schema(
        checkpoint=pa.string(),
        shard=pa.string(),
        example_id=pa.string(),
        row=pa.int64(),
        content_hash=pa.string(),
        embedding=pa.list_(pa.float32()),  # unit norm
        encoder_hash=pa.string(),
        shard_hash=pa.string(),
        computed_from=pa.string(),
    ),
)

INFLUCODER_SCORES = TableSchema("influcoder_scores", QUERY_SCORES.partition_by, QUERY_SCORES.columns)

INFLUCODER_AGREEMENT = TableSchema(
    "influcoder_agreement",
    ("checkpoint",),
    _schema(
        checkpoint=pa.string(),
        encoder=pa.string(),  # served: the stored one | trained: of a seed | untrained: the control
        seed=pa.int64(),  # of split and training
        per_anchor=pa.float64(),  # mean Spearman correlation along the held-out pool
        aggregated=pa.float64(),  # Spearman correlation of the held-out pool's means over anchors
        anchors=pa.int32(),  # held out
        pool=pa.int32(),
        teacher=pa.string(),
        teacher_seconds=pa.float64(),  # of the gradients: set-up
        training_seconds=pa.float64(),  # of the distillation: set-up
        milliseconds_per_text=pa.float64(),  # of an embedding, after a warm-up
        recipe_hash=pa.string(),
        computed_from=pa.string(),
    ),
)

RECALL_CURVES = TableSchema(
    "recall_curves",
    ("checkpoint", "query_set"),
    _schema(
        checkpoint=pa.string(),
        query_set=pa.string(),
        k=pa.int32(),  # of the exact leading examples
        candidates=pa.int64(),  # n: proposed by the encoder for each query
        n_examples=pa.int64(),
        recall=pa.float64(),  # share of the exact top k among the n proposed, mean over queries
        random_recall=pa.float64(),  # n / n_examples
        bytes_read=pa.int64(),  # of factors, for all queries together
        bytes_full_scan=pa.int64(),
        seconds=pa.float64(),
        seconds_full_scan=pa.float64(),
        recipe_hash=pa.string(),
        computed_from=pa.string(),
    ),
)

TABLES: Mapping[str, TableSchema] = {
    schema.name: schema
    for schema in (
        TRAINING_EXAMPLES,
        QUERY_EXAMPLES,
        REJECTED,
        CHECKPOINTS,
        KFAC_BASES,
        GRADIENT_FACTORS,
        SVD_PRECONDITIONERS,
        EKFAC_PRECONDITIONERS,
        QUERY_SCORES,
        QUERY_SUMMARIES,
        SCORE_SCANS,
        REPORTS,
        CHECKPOINT_COMPARISONS,
        SUBSETS,
        SUBSET_LOSSES,
        EVALUATED_SCORES,
        METHOD_COSTS,
        EVALUATION_FIGURES,
        REMOVAL_LOSSES,
        RECIPE_TRIALS,
        EVALUATION_REPORTS,
        INFLUENCE_TARGETS,
        INFLUCODER_ENCODERS,
        INFLUENCE_EMBEDDINGS,
        INFLUCODER_SCORES,
        INFLUCODER_AGREEMENT,
        RECALL_CURVES,
    )
}
