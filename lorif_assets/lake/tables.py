"""All tables of the lake, by name."""

from collections.abc import Mapping

from lorif_assets.lake.attribution_tables import (
    CHECKPOINT_COMPARISONS,
    CHECKPOINTS,
    EXACT_SCORES,
    GRADIENT_FACTORS,
    GROUP_SCORES,
    KEPT_SHARDS,
    KFAC_BASES,
    PRECONDITIONER_TABLES,
    QUERY_EXAMPLES,
    QUERY_SCORES,
    QUERY_SUMMARIES,
    REJECTED,
    RELATIVE_SCORES,
    REPORTS,
    SCORE_SCANS,
    TOKEN_SCORES,
    TRAINING_EXAMPLES,
)
from lorif_assets.lake.evaluation_tables import (
    EVALUATED_SCORES,
    EVALUATION_FIGURES,
    EVALUATION_REPORTS,
    METHOD_COSTS,
    RECIPE_TRIALS,
    REMOVAL_LOSSES,
    SUBSET_LOSSES,
    SUBSETS,
)
from lorif_assets.lake.influcoder_tables import (
    INFLUCODER_AGREEMENT,
    INFLUCODER_ENCODERS,
    INFLUCODER_SCORES,
    INFLUENCE_EMBEDDINGS,
    INFLUENCE_TARGETS,
    RECALL_CURVES,
)
from lorif_assets.lake.table_schema import TableSchema

TABLES: Mapping[str, TableSchema] = {
    schema.name: schema
    for schema in (
        TRAINING_EXAMPLES,
        QUERY_EXAMPLES,
        REJECTED,
        KEPT_SHARDS,
        CHECKPOINTS,
        KFAC_BASES,
        GRADIENT_FACTORS,
        *PRECONDITIONER_TABLES,
        QUERY_SCORES,
        RELATIVE_SCORES,
        QUERY_SUMMARIES,
        SCORE_SCANS,
        TOKEN_SCORES,
        EXACT_SCORES,
        GROUP_SCORES,
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
