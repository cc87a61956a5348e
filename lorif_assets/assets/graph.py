"""The graph: every asset, each after what it is made of. All that walks the graph walks this."""

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.assets.attribution_report import attribution_report
from lorif_assets.assets.checkpoint_comparison import checkpoint_comparison
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.evaluation_report import evaluation_report
from lorif_assets.assets.exact_scores import exact_scores
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.group_scores import group_scores
from lorif_assets.assets.influcoder_agreement import influcoder_agreement
from lorif_assets.assets.influcoder_encoder import influcoder_encoder
from lorif_assets.assets.influcoder_scores import influcoder_scores
from lorif_assets.assets.influence_embeddings import influence_embeddings
from lorif_assets.assets.influence_targets import influence_targets
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.assets.linear_datamodeling_score import linear_datamodeling_score
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.preconditioners import PRECONDITIONERS
from lorif_assets.assets.query_examples import query_examples
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.assets.recall_curves import recall_curves
from lorif_assets.assets.removal_losses import removal_losses
from lorif_assets.assets.selection_losses import selection_losses
from lorif_assets.assets.source_retrieval import source_retrieval
from lorif_assets.assets.subset_losses import subset_losses
from lorif_assets.assets.tail_patch import tail_patch
from lorif_assets.assets.token_scores import token_scores
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.config.settings import Settings

GRAPH = (
    training_examples,
    query_examples,
    checkpoints,
    kfac_bases,
    gradient_factors,
    *PRECONDITIONERS,
    influence_targets,
    influcoder_encoder,
    influence_embeddings,
    influcoder_scores,
    influcoder_agreement,
    recall_curves,
    query_scores,
    token_scores,
    exact_scores,
    group_scores,
    attribution_report,
    checkpoint_comparison,
    method_scores,
    source_retrieval,
    tail_patch,
    subset_losses,
    linear_datamodeling_score,
    removal_losses,
    selection_losses,
    evaluation_report,
)

ASSETS = tuple(asset for asset in GRAPH if not asset.on_demand)
"""Assets that are brought up to date by themselves."""

EVALUATION = tuple(asset for asset in GRAPH if asset.on_demand)
"""Assets that check the scores against retraining; materialized on demand."""


def assets_in_use(settings: Settings) -> tuple[AttributionAsset, ...]:
    """Return the assets that are used under these settings; the others have nothing to do."""
    return tuple(asset for asset in ASSETS if asset.is_used(settings))
