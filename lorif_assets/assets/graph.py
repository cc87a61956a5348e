"""All assets, upstream first."""

from lorif_assets.assets.checkpoint_comparison import checkpoint_comparison
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.corpus import query_examples, training_examples
from lorif_assets.assets.evaluation_report import evaluation_report
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.linear_datamodeling_score import linear_datamodeling_score
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.assets.report import attribution_report
from lorif_assets.assets.subset_losses import subset_losses
from lorif_assets.assets.svd_preconditioners import svd_preconditioners

ASSETS = (
    training_examples,
    query_examples,
    checkpoints,
    gradient_factors,
    svd_preconditioners,
    query_scores,
    attribution_report,
    checkpoint_comparison,
)

EVALUATION = (subset_losses, method_scores, linear_datamodeling_score, evaluation_report)
"""Assets that hold the scores against retraining, upstream first; materialized on demand."""
