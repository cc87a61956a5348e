"""Asset checks: whether what is stored can be trusted. They fail loudly, in Dagster's UI, and change nothing."""

from lorif_assets.checks.curvature import SOUNDNESS_CHECKS, curvature_has_not_drifted, damping_is_safe
from lorif_assets.checks.data import example_ids_are_unique, shards_are_no_copies, stored_shards_have_sources
from lorif_assets.checks.factors import (
    examples_are_not_learned_by_heart,
    factor_rows_are_complete,
    factors_match_their_inputs,
    losses_are_finite,
)
from lorif_assets.checks.freshness import attribution_is_fresh
from lorif_assets.checks.influcoder import held_out_texts_are_apart
from lorif_assets.checks.kfac_bases import bases_are_settled
from lorif_assets.checks.recomputed import examples_retrieve_themselves, factors_reproduce_gradients

CHECKS = (
    example_ids_are_unique,
    shards_are_no_copies,
    stored_shards_have_sources,
    factor_rows_are_complete,
    factors_match_their_inputs,
    losses_are_finite,
    examples_are_not_learned_by_heart,
    factors_reproduce_gradients,
    *SOUNDNESS_CHECKS,
    damping_is_safe,
    curvature_has_not_drifted,
    bases_are_settled,
    examples_retrieve_themselves,
    attribution_is_fresh,
    held_out_texts_are_apart,
)
