"""Data versions: what each partition is computed from, as one hash, for the lake and Dagster to compare."""

from collections.abc import Mapping, Sequence

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.methods import MethodName
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings


def checkpoint_version(weights_hash: str, tokenizer_hash: str, layers: Sequence[Mapping[str, str | int]]) -> str:
    """Return the version of a checkpoint: another choice of layers is another one; another step name is not."""
    return content_hash([weights_hash, tokenizer_hash, list(layers)])


def factor_version(recipe: Recipe, record: CheckpointRecord, shard_hash: str) -> str:
    """Return the version of one shard's gradient factors."""
    return factor_versions(recipe, record, {"": shard_hash})[""]


def factor_versions(recipe: Recipe, record: CheckpointRecord, shard_hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the version of each shard's gradient factors."""
    factor_hash, fingerprint = recipe.factor_hash, record.bases_fingerprint
    return {
        shard: content_hash([factor_hash, record.weights_hash, record.tokenizer_hash, shard_hash, fingerprint])
        for shard, shard_hash in shard_hashes.items()
    }


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
            record.bases_fingerprint,
        ]
    )


def refined_version(version: str, basis_version: str | None = None) -> str:
    """Return the version of a stored preconditioner: a refined basis, which changes scores, gives another one."""
    return content_hash([version, basis_version]) if basis_version else version


def score_version(
    recipe: Recipe,
    record: CheckpointRecord,
    shard_hashes: Mapping[str, str],
    query_set_hash: str,
    basis_versions: Mapping[str, str],
) -> str:
    """Return the version of one query set's scores at a checkpoint.

    `basis_versions` has the basis version of each layer whose basis was refined: that changes scores, but nothing that
    the preconditioners are computed from.
    """
    parts = [recipe.score_hash, preconditioner_version(recipe, record, shard_hashes), query_set_hash]
    return content_hash([*parts, dict(basis_versions)] if basis_versions else parts)


def averaged_version(recipe: Recipe, versions: Sequence[str], weights: Sequence[float]) -> str:
    """Return the version of scores averaged over checkpoints, from version and weight of each; the newest comes last."""
    if len(versions) == 1:
        return versions[0]
    # Equal weights are what there was before there was a choice. Recipes that average in any case hash how they do.
    how = [] if recipe.averages else recipe.averaging
    return content_hash([*versions, *how, list(weights)] if len(set(weights)) > 1 else [*versions, *how])


def report_version(settings: Settings, scores: str) -> str:
    """Return the version of the report of scores of a version: it also shows what is kept beside them."""
    kept = [one for one in (settings.token_scores, settings.exact_scores, settings.groups) if one.enabled]
    return content_hash([section.version(scores) for section in kept]) if kept else scores


def datamodeling_version(evaluation: EvaluationSettings, scores: str, ground_truth: str) -> str:
    """Return the version of linear datamodeling scores, and of agreements with exact EK-FAC where that is compared."""
    agreement = ["ndcg_at_20"] if MethodName.EKFAC in evaluation.methods else []
    return content_hash([scores, ground_truth, evaluation.bootstrap, *agreement])


def tail_patch_version(evaluation: EvaluationSettings, scores: str) -> str:
    """Return the version of tail-patch figures."""
    return content_hash([scores, evaluation.tail_patch_k, evaluation.tail_patch_learning_rate, evaluation.bootstrap])


def source_retrieval_version(evaluation: EvaluationSettings, scores: str) -> str:
    """Return the version of the figures of how well known sources are found."""
    return content_hash([scores, evaluation.source_field, evaluation.topic_fields, evaluation.bootstrap, "auprc"])


def removal_figures_version(evaluation: EvaluationSettings, losses: Mapping[str, str]) -> str:
    """Return the version of the figures that follow from losses after removals, by their versions."""
    share = min(evaluation.removal_shares, default=None)
    return content_hash([losses, share, evaluation.sorted_subsets, evaluation.bootstrap])


def target_version(targets_hash: str, weights_hash: str, tokenizer_hash: str, content_hashes: Sequence[str]) -> str:
    """Return the version of influence targets between the sampled texts, in their order."""
    return content_hash([targets_hash, weights_hash, tokenizer_hash, list(content_hashes)])


def encoder_version(encoder_hash: str, targets: str) -> str:
    """Return the version of an encoder trained on targets of a version.

    The encoder that a warm start continues from is not part of it: a new one does not put later encoders out of date.
    """
    return content_hash([encoder_hash, targets])


def embedding_version(weights: str, shard_hash: str) -> str:
    """Return the version of a shard's embeddings by an encoder with these weights."""
    return content_hash([weights, shard_hash])


def embedding_index_version(weights: str, shard_hashes: Mapping[str, str], seed: int) -> str:
    """Return the version of an approximate index of the embeddings of some shards."""
    return content_hash([weights, ledger_version(shard_hashes), seed])


def encoder_score_version(
    weights: str, shard_hashes: Mapping[str, str], query_set_hash: str, top_k: int | str, search_hash: str
) -> str:
    """Return the version of one query set's scores by an encoder."""
    return content_hash([weights, ledger_version(shard_hashes), query_set_hash, top_k, search_hash])


def recalled_version(scores: str, weights: str, search_hash: str) -> str:
    """Return the version of scores of the examples that an encoder with these weights proposed by this search."""
    return content_hash([scores, weights, search_hash])


def recall_curve_version(scores: str, weights: str) -> str:
    """Return the version of the recall of exact scores by an encoder with these weights."""
    return content_hash([scores, weights])
