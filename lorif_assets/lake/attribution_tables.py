"""The tables of attribution: their columns, types and partition columns, checked on every write.

`gradient_factors` is open-ended: after the columns named here it has one `large_binary` column per tracked layer, named
by the layer's module path, that holds the bytes of each example's factors in the layout that `factor_codec` names.
"""

from dataclasses import replace

import pyarrow as pa

from lorif_assets.lake.table_schema import table

CHECKPOINTS = table(
    "checkpoints",
    ("checkpoint",),
    "A checkpoint: where it is, its fingerprints and the layers that are tracked.",
    checkpoint=pa.string(),
    uri=pa.string(),
    step=(pa.int64(), "training step, if the name or the registry states it"),
    weights_hash=pa.string(),
    tokenizer_hash=pa.string(),
    model_type=(pa.string(), "of the checkpoint's configuration"),
    n_parameters=(pa.int64(), "number of parameters"),
    layers=(
        pa.string(),
        'JSON: [{"layer", "d_in", "d_out", "d1", "d2"}], of the tracked layers; measured widths: `kfac_bases`',
    ),
    recipe_hash=pa.string(),
    files_version=(pa.string(), "sizes, times and samples of the files: whether to hash them again"),
)

GRADIENT_FACTORS = table(
    "gradient_factors",
    ("checkpoint", "shard"),
    "A training example's factors: one binary column per tracked layer, named by the layer's module path.",
    pa.large_binary(),
    checkpoint=pa.string(),
    shard=pa.string(),
    example_id=pa.string(),
    row=pa.int64(),
    loss=(pa.float32(), "summed over the target tokens, nats"),
    n_target_tokens=pa.int32(),
    truncated=(pa.bool_(), "whether the example was cut by `recipe.truncation`"),
    recipe_hash=pa.string(),
    weights_hash=pa.string(),
    tokenizer_hash=pa.string(),
    projection=(pa.string(), "fingerprint of the projections"),
    shard_hash=pa.string(),
    factor_codec=(pa.string(), "format of the layers' columns: bf16 | fp32 | int8 | int4 | sign"),
    bases=(pa.string(), "fingerprint of the K-FAC bases that gradients were whitened in; empty without whitening"),
    fisher=(pa.string(), "folder of the shard's sums of squared rotated gradients, one safetensors file per layer"),
)

KFAC_BASES = table(
    "kfac_bases",
    ("checkpoint",),
    "A layer's rank and how settled its bases are; the bases themselves are in `kfac_bases_tensors/`.",
    checkpoint=pa.string(),
    layer=pa.string(),
    d1=pa.int32(),
    d2=pa.int32(),
    rank=(pa.int32(), "components that an example keeps in this layer"),
    bytes_per_example=(pa.int64(), "of those components"),
    kept_energy=(pa.float64(), "share of whitened gradients' squared norm that they hold before encoding, in a sample"),
    n_examples=(pa.int64(), "of the sample that the bases were fitted to"),
    n_tokens=(pa.int64(), "of that sample"),
    labels=(pa.string(), "data | model"),
    max_width=(pa.int32(), "largest width, where it was measured; null where recipe and shapes decide it"),
    expected_agreement=(
        pa.float64(),
        "NDCG@20 of scores at these widths and bytes to exact EK-FAC, on a sample; null where not measured",
    ),
    half_agreement=(pa.float64(), "how well bases of one half of the sample diagonalise the other half's, 0 to 1"),
    uri=(pa.string(), "safetensors file, relative to the lake root: q_in, q_out, a, b"),
    fingerprint=(pa.string(), "hash of the bases and ranks of all layers of the checkpoint"),
    sample_hash=(pa.string(), "of the examples that they were fitted to"),
    version=(pa.string(), "hash of what asks for a new fit: recipe and weights, not the data"),
    recipe_hash=pa.string(),
    weights_hash=pa.string(),
    projection=pa.string(),
    optimizer=(pa.string(), "hash of the optimiser's state that their curvature is made of; null: none is known"),
)

SVD_PRECONDITIONERS = table(
    "svd_preconditioners",
    ("checkpoint", "layer"),
    'With `curvature = "svd"`: a layer\'s eigenvalues, trace and damping; its vectors are in `curvature_states/`.',
    checkpoint=pa.string(),
    layer=pa.string(),
    d1=pa.int32(),
    d2=pa.int32(),
    r=(pa.int32(), "eigenpairs that are kept"),
    eigenvalues=(pa.list_(pa.float64()), "largest first; up to ten beyond r"),
    trace=pa.float64(),
    damping=pa.float64(),
    captured_energy=(pa.float64(), "sum of the leading eigenvalues / trace"),
    basis_version=(pa.string(), '"": as the recipe makes it; else the hash of the data it was refined on'),
    fitted_energy=(pa.float64(), "captured_energy when the basis was fitted"),
    added_energy=(pa.float64(), "sum of squared gradient norms added since"),
    added_energy_captured=(pa.float64(), "its part in the eigenvectors from before it was added"),
    needs_refine=(pa.bool_(), "whether that part is below curvature.refine_below times fitted_energy"),
    n_examples=(pa.int64(), "training examples that the state holds"),
    state_uri=(pa.string(), "safetensors file, relative to the lake root"),
    ledger=(pa.string(), "JSON: {shard: {shard_hash, path, rows}} of the data that the state holds"),
    ledger_hash=pa.string(),
    state_version=(pa.string(), "hash of what basis and image depend on besides the data"),
    version=(pa.string(), "hash of all that the row is computed from"),
    recipe_hash=pa.string(),
    weights_hash=pa.string(),
    projection=pa.string(),
)

EKFAC_PRECONDITIONERS = table(
    "ekfac_preconditioners",
    ("checkpoint", "layer"),
    "A layer's largest eigenvalues, their sum and its damping; its sums are in `curvature_states/`, those of each shard in "
    "`fisher_sums/`.",
    checkpoint=pa.string(),
    layer=pa.string(),
    d1=pa.int32(),
    d2=pa.int32(),
    eigenvalues=(pa.list_(pa.float64()), "the largest entries of Lam, at most 256"),
    trace=(pa.float64(), "sum of Lam"),
    damping=pa.float64(),
    n_examples=(pa.int64(), "training examples that the state holds"),
    state_uri=(
        pa.string(),
        "safetensors file, relative to the lake root: `squares`, sums of R * R in FP64; with `recipe.fisher_share`, `squared`: "
        "how many examples they are over",
    ),
    ledger=(pa.string(), "JSON: {shard: {shard_hash, path, rows}} of the data that the sums hold"),
    ledger_hash=pa.string(),
    state_version=(pa.string(), "hash of what the sums depend on besides the data"),
    version=(pa.string(), "hash of all that the row is computed from"),
    recipe_hash=pa.string(),
    weights_hash=pa.string(),
    projection=pa.string(),
    bases=(pa.string(), "fingerprint of the K-FAC bases"),
)

PRECONDITIONER_TABLES = (SVD_PRECONDITIONERS, EKFAC_PRECONDITIONERS)
"""The tables of all curvatures."""

_SIDE = "highest: proponents | lowest: opponents"

QUERY_SCORES = table(
    "query_scores",
    ("checkpoint", "query_set"),
    "A proponent or opponent of a query: its side, rank and score.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    query_id=pa.string(),
    side=(pa.string(), f"{_SIDE} | all: every pair, as `top_k` asks"),
    rank=(pa.int32(), "from 1; the most extreme first"),
    example_id=pa.string(),
    shard=pa.string(),
    score=pa.float32(),
    recipe_hash=pa.string(),
    computed_from=(pa.string(), "hash of weights, query set, ledger and recipe"),
    relative_score=(
        pa.float32(),
        "relative influence: score over the example's size; null where it was stored without",
    ),
)

RELATIVE_SCORES = replace(
    QUERY_SCORES,
    name="relative_scores",
    row="A proponent or opponent of a query by relative influence, in the columns of `query_scores`.",
    meanings={
        **QUERY_SCORES.meanings,
        "side": f"{_SIDE}, by relative influence",
        "rank": "from 1, by relative influence; the most extreme first",
    },
)

EXACT_SCORES = table(
    "exact_scores",
    ("checkpoint", "query_set"),
    "A leading example of a query, ranked again by its whole gradient; kept where `exact_scores.enabled` is set.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    query_id=pa.string(),
    side=(pa.string(), _SIDE),
    rank=(pa.int32(), "from 1, by `score`, among the examples of this side that were scored again"),
    example_id=pa.string(),
    shard=pa.string(),
    score=(pa.float32(), "from the whole gradients of query and example, neither projected nor compressed"),
    stored_rank=(pa.int32(), "of the same side in `query_scores`"),
    stored_score=(pa.float32(), "in `query_scores`"),
    self_influence=(pa.float32(), "of the example on itself, g^T H^-1 g of its whole gradient by EK-FAC"),
    relative_score=(pa.float32(), "RelatIF: `score` over the root of `self_influence`; 0 without a gradient"),
    query_solver=(pa.string(), "ekfac | cg: what multiplied the query's gradient"),
    recipe_hash=pa.string(),
    computed_from=(pa.string(), "hash of `scores_from` and the settings in `exact_scores`"),
    scores_from=(pa.string(), "`computed_from` of the scores that are ranked again"),
)

GROUP_SCORES = table(
    "group_scores",
    ("checkpoint", "query_set"),
    "A query's influence summed over the training examples that share a value of their metadata; kept where `groups.columns` "
    "is set.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    query_id=pa.string(),
    column=(pa.string(), "of the training data's metadata"),
    value=(pa.string(), "of the column; (none) where an example has none"),
    n_examples=(pa.int64(), "training examples that have the value"),
    score_sum=(pa.float64(), "of posterior means; with `groups.shrunk = false` of scores as they are stored"),
    score_mean=(pa.float64(), "of the same"),
    standard_error=(
        pa.float64(),
        "of `score_sum`: the root of `n_examples` times the standard deviation within the group; null for one example",
    ),
    low=(pa.float64(), "`score_sum` less 1.96 standard errors"),
    high=(pa.float64(), "`score_sum` and 1.96 standard errors"),
    recipe_hash=pa.string(),
    computed_from=(pa.string(), "hash of `scores_from` and the columns"),
    scores_from=(pa.string(), "`computed_from` of the scores in `query_scores`"),
    noise_share=(
        pa.float64(),
        "of the mean square of stored scores that is noise, as measured on a sample (`groups.shrunk`); null where sums are of "
        "scores as they are stored",
    ),
)

TOKEN_SCORES = table(
    "token_scores",
    ("checkpoint", "query_set"),
    "A token of an example or of a query, and its share of the pair's score; kept where `token_scores.enabled` is set.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    query_id=pa.string(),
    shard=pa.string(),
    example_id=pa.string(),
    side=(pa.string(), "example | query: whose token it is"),
    term=(pa.int32(), "which term of what the query asks about, from 0; of a query without `objective`, 0"),
    position=(pa.int32(), "of the token among those that the model saw, from 0"),
    token_id=pa.int32(),
    token=(pa.string(), "what it says; empty where a later token completes the character"),
    score=(
        pa.float32(),
        "its share of `exact_score`, which the shares of either side sum to; null where the token carries no loss",
    ),
    exact_score=(pa.float32(), "the pair's score from uncompressed gradients"),
    stored_score=(pa.float32(), "the pair's score in `query_scores`"),
    recipe_hash=pa.string(),
    computed_from=(pa.string(), "hash of `scores_from` and `token_scores.top_k`"),
    scores_from=(pa.string(), "`computed_from` of the scores that the pairs lead"),
)

QUERY_SUMMARIES = table(
    "query_summaries",
    ("checkpoint", "query_set"),
    "A query's loss, and the spread and concentration of its scores.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    query_id=pa.string(),
    loss=(
        pa.float32(),
        "summed over the target tokens, nats; of a query with `objective`, its value: a difference or a weighted sum of "
        "losses, or the scalar",
    ),
    n_target_tokens=pa.int32(),
    n_examples=pa.int64(),
    score_mean=(pa.float64(), "over the scored examples"),
    score_std=(pa.float64(), "over the scored examples"),
    score_abs_sum=(pa.float64(), "sum of the scores' magnitudes"),
    positive_sum=(pa.float64(), "sum of the positive scores"),
    top_10_share=(pa.float64(), "share of the positive scores' sum in the 10 highest"),
    top_100_share=(pa.float64(), "the same of the 100 highest"),
    recipe_hash=pa.string(),
    computed_from=pa.string(),
    averaged=(
        pa.string(),
        "JSON: {checkpoint: weight} of those whose scores were averaged; null where it was not stored",
    ),
)

SCORE_SCANS = table(
    "score_scans",
    ("checkpoint", "query_set"),
    'The last full scan of a query set, kept where `recipe.added_data = "merged"`.',
    checkpoint=pa.string(),
    query_set=pa.string(),
    state_uri=(pa.string(), "safetensors file, relative to the lake root: extremes, moments, scores of the probe"),
    ledger=(pa.string(), "JSON: {shard: {shard_hash, rows}} of what was scanned"),
    scan_version=(pa.string(), "hash of what scores depend on besides the shards"),
)

REPORTS = table(
    "reports",
    ("checkpoint", "query_set"),
    "Where the report of a query set is.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    uri=pa.string(),
    computed_from=(pa.string(), "hash of what the scores that it shows were computed from"),
    page=(
        pa.string(),
        "checksum of the page and its path in the lake, as `xxhsum -H2` prints them; null where stored without",
    ),
)

CHECKPOINT_COMPARISONS = table(
    "checkpoint_comparisons",
    ("query_set",),
    "How a query's top proponents moved from one checkpoint to the next.",
    query_set=pa.string(),
    query_id=pa.string(),
    from_checkpoint=(pa.string(), "the earlier of two compared checkpoints"),
    to_checkpoint=(pa.string(), "the next compared one; columns below are null if it alone was scored for the query"),
    rank_biased_overlap=(pa.float64(), "of the proponents, 0 to 1"),
    relative_overlap=(pa.float64(), "rank_biased_overlap by relative influence; null where it was stored without"),
    overlap_at_10=(pa.float64(), "share of the ten leading proponents that stayed among them"),
    entered=(pa.string(), "JSON list of example ids, by their new rank"),
    left=(pa.string(), "JSON list of example ids, by their old rank"),
    loss_per_token_from=(pa.float64(), "nats; null of a query that asks about something other than a loss"),
    loss_per_token_to=(pa.float64(), "the same at the later checkpoint, also where it alone was scored"),
    value_from=(
        pa.float64(),
        "of a contrast, a weighted set or a scalar alone: its value, as `loss` in `query_summaries`; null where it was "
        "stored without, with the value by token in `loss_per_token_from`",
    ),
    value_to=(pa.float64(), "the same at the later checkpoint, also where it alone was scored"),
    recipe_hash=pa.string(),
    computed_from=(pa.string(), "hash of both checkpoints' scores"),
    page=(
        pa.string(),
        "checksum of the page and its path in the lake, as `xxhsum -H2` prints them; null where stored without",
    ),
)
