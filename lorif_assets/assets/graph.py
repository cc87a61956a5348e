"""All assets, upstream first."""

import dagster as dg

from lorif_assets.assets.attribution_report import attribution_report
from lorif_assets.assets.checkpoint_comparison import checkpoint_comparison
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.corpus import query_examples, training_examples
from lorif_assets.assets.ekfac_preconditioners import ekfac_preconditioners
from lorif_assets.assets.evaluation_report import evaluation_report
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.influcoder_agreement import influcoder_agreement
from lorif_assets.assets.influcoder_encoder import influcoder_encoder
from lorif_assets.assets.influcoder_scores import influcoder_scores
from lorif_assets.assets.influence_embeddings import influence_embeddings
from lorif_assets.assets.influence_targets import influence_targets
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.assets.linear_datamodeling_score import linear_datamodeling_score
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.assets.recall_curves import recall_curves
from lorif_assets.assets.removal_losses import removal_losses
from lorif_assets.assets.source_retrieval import source_retrieval
from lorif_assets.assets.subset_losses import subset_losses
from lorif_assets.assets.svd_preconditioners import svd_preconditioners
from lorif_assets.assets.tail_patch import tail_patch
from lorif_assets.attribution.curvatures import curvature_of
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import KFAC_BASES

ASSETS = (
    training_examples,
    query_examples,
    checkpoints,
    kfac_bases,
    gradient_factors,
    svd_preconditioners,
    ekfac_preconditioners,
    influence_targets,
    influcoder_encoder,
    influence_embeddings,
    influcoder_scores,
    influcoder_agreement,
    recall_curves,
    query_scores,
    attribution_report,
    checkpoint_comparison,
)

EVALUATION = (
    method_scores,
    source_retrieval,
    tail_patch,
    subset_losses,
    linear_datamodeling_score,
    removal_losses,
    evaluation_report,
)
"""Assets that hold the scores against retraining, upstream first; materialized on demand."""

_OF_SOME_CURVATURE = (kfac_bases, svd_preconditioners, ekfac_preconditioners)
_OF_INFLUCODER = (
    influence_targets,
    influcoder_encoder,
    influence_embeddings,
    influcoder_scores,
    influcoder_agreement,
    recall_curves,
)


def assets_in_use(settings: Settings) -> tuple[dg.AssetsDefinition, ...]:
    """Return the assets that attribute under these settings, upstream first; the others have nothing to do."""
    used = {curvature_of(settings.recipe).table.name, *([KFAC_BASES.name] if settings.recipe.whitens else [])}
    idle = [asset for asset in _OF_SOME_CURVATURE if asset.key.to_user_string() not in used]
    if not settings.influcoder.enabled:
        idle += _OF_INFLUCODER
    return tuple(asset for asset in ASSETS if asset not in idle)
