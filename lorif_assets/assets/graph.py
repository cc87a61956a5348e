"""All assets, upstream first."""

from lorif_assets.assets.checkpoint_comparison import checkpoint_comparison
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.corpus import query_examples, training_examples
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.influcoder_agreement import influcoder_agreement
from lorif_assets.assets.influcoder_encoder import influcoder_encoder
from lorif_assets.assets.influcoder_scores import influcoder_scores
from lorif_assets.assets.influence_embeddings import influence_embeddings
from lorif_assets.assets.influence_targets import influence_targets
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.assets.recall_curves import recall_curves
from lorif_assets.assets.report import attribution_report
from lorif_assets.assets.svd_preconditioners import svd_preconditioners

ASSETS = (
    training_examples,
    query_examples,
    checkpoints,
    gradient_factors,
    svd_preconditioners,
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
