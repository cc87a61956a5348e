"""All tables of the lake, by name."""

from collections.abc import Mapping

from lorif_assets.lake.attribution_tables import (
    CHECKPOINT_COMPARISONS,
    CHECKPOINTS,
    EXACT_SCORES,
    GRADIENT_FACTORS,
    GROUP_SCORES,
    KFAC_BASES,
    PRECONDITIONER_TABLES,
    QUERY_SCORES,
    QUERY_SUMMARIES,
    RELATIVE_SCORES,
    REPORTS,
    SCORE_SCANS,
    TOKEN_SCORES,
)
from lorif_assets.lake.data_tables import KEPT_SHARDS, QUERY_EXAMPLES, REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import (
    EVALUATED_SCORES,
    EVALUATION_FIGURES,
    EVALUATION_REPORTS,
    METHOD_COSTS,
    RECIPE_TRIALS,
    REMOVAL_LOSSES,
    SELECTION_LOSSES,
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
        SELECTION_LOSSES,
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

FILE_COLUMNS: Mapping[str, str] = {
    **{schema.name: "state_uri" for schema in (*PRECONDITIONER_TABLES, SCORE_SCANS)},
    KFAC_BASES.name: "uri",
    GRADIENT_FACTORS.name: "fisher",
    INFLUCODER_ENCODERS.name: "uri",
}
"""By table, the column that points to a file of the lake, or to a folder of files."""

PAGE_TABLES = (REPORTS, CHECKPOINT_COMPARISONS, EVALUATION_REPORTS)
"""The tables whose column `page` has the checksum and the path of a page."""

_MAKERS: Mapping[str, str] = {
    RELATIVE_SCORES.name: "query_scores",
    QUERY_SUMMARIES.name: "query_scores",
    SCORE_SCANS.name: "query_scores",
    REPORTS.name: "attribution_report",
    CHECKPOINT_COMPARISONS.name: "checkpoint_comparison",
    INFLUCODER_ENCODERS.name: "influcoder_encoder",
    SUBSETS.name: "subset_losses",
    EVALUATED_SCORES.name: "method_scores",
    METHOD_COSTS.name: "method_scores",
    EVALUATION_REPORTS.name: "evaluation_report",
}
_EVALUATED = (
    SUBSETS,
    SUBSET_LOSSES,
    EVALUATED_SCORES,
    METHOD_COSTS,
    EVALUATION_FIGURES,
    REMOVAL_LOSSES,
    SELECTION_LOSSES,
    EVALUATION_REPORTS,
)


def maker(table: str, partition: Mapping[str, str]) -> str:
    """Return the asset that makes a partition of a table."""
    if table == REJECTED.name:
        return partition.get("stage", table)
    if table == EVALUATION_FIGURES.name:
        return partition.get("evaluation", table)
    return _MAKERS.get(table, table)


def command(table: str) -> str:
    """Return the command that makes what is missing in a table."""
    if table == RECIPE_TRIALS.name:
        return "lorif tune"
    if table == KEPT_SHARDS.name:
        return "lorif withdraw --keep"
    return "lorif evaluate" if table in {schema.name for schema in _EVALUATED} else "lorif materialize"
