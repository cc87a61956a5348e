"""Data versions: what each partition is computed from, as one hash. They are what the lake and Dagster compare."""

from collections.abc import Mapping

from lorif_assets.attributed_model import CheckpointRecord
from lorif_assets.recipe import Recipe, content_hash
from lorif_assets.settings import EvaluationSettings


def factor_version(recipe: Recipe, record: CheckpointRecord, shard_hash: str) -> str:
    """Return the version of one shard's gradient factors."""
    return content_hash([recipe.factor_hash, record.weights_hash, record.tokenizer_hash, shard_hash, record.bases])


def ledger_version(shard_hashes: Mapping[str, str]) -> str:
    """Return the version of a set of shards: which data a curvature state holds."""
    return content_hash(dict(shard_hashes))


def preconditioner_version(recipe: Recipe, record: CheckpointRecord, shard_hashes: Mapping[str, str]) -> str:
    """Return the version of a checkpoint's preconditioners."""
    return content_hash(
        [
            recipe.preconditioner_hash,
            record.weights_hash,
            record.tokenizer_hash,
            ledger_version(shard_hashes),
            record.bases,
        ]
    )


def score_version(
    recipe: Recipe,
    record: CheckpointRecord,
    shard_hashes: Mapping[str, str],
    query_set_hash: str,
    refined_bases: Mapping[str, str],
) -> str:
    """Return the version of one query set's scores at a checkpoint.

    `refined_bases` has the basis version of each layer whose curvature was refined: that changes scores, and nothing
    that the preconditioners are computed from.
    """
    parts = [recipe.score_hash, preconditioner_version(recipe, record, shard_hashes), query_set_hash]
    refined = dict(refined_bases) if recipe.curvature == "svd" else {}
    return content_hash([*parts, refined] if refined else parts)


def datamodeling_version(evaluation: EvaluationSettings, scores: str, ground_truth: str) -> str:
    """Return the version of linear datamodeling scores."""
    return content_hash([scores, ground_truth, evaluation.bootstrap])


def tail_patch_version(evaluation: EvaluationSettings, scores: str) -> str:
    """Return the version of tail-patch figures."""
    return content_hash([scores, evaluation.tail_patch_k, evaluation.tail_patch_learning_rate, evaluation.bootstrap])


def source_retrieval_version(evaluation: EvaluationSettings, scores: str) -> str:
    """Return the version of how well known sources are found."""
    return content_hash([scores, evaluation.source_field, evaluation.topic_fields, evaluation.bootstrap])
