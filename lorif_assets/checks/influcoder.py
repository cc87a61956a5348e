"""Checks of Influcoder: what it is measured on is nothing that it was trained on."""

import dagster as dg

from lorif_assets.assets.influcoder_agreement import influcoder_agreement
from lorif_assets.bi_encoder.extra import require_influcoder
from lorif_assets.checks.check_result import check_result
from lorif_assets.settings import Settings
from resources.influcoder_schemas import INFLUENCE_TARGETS
from resources.lake import Lake


@dg.asset_check(
    asset=influcoder_agreement,
    description="No text that Influcoder is measured on is among those it is trained on, word for word or nearly.",
)
def held_out_texts_are_apart(settings: dg.ResourceParam[Settings], lake: Lake) -> dg.AssetCheckResult:
    """Compare the distilled with the held-out texts of every checkpoint, for the served split and each evaluation seed."""
    from lorif_assets.bi_encoder.leakage_audit import leaks

    names = lake.read(INFLUENCE_TARGETS, ["checkpoint"])["checkpoint"].unique().sort().to_list()
    if names:
        require_influcoder()
    wrong = [line for name in names for line in leaks(lake, name, settings.influcoder.evaluation_seeds)]
    return check_result(
        "no held-out text is among the distilled ones",
        wrong,
        remedy="materialize `influence_targets` again: its sample leaves near-duplicates out",
        checkpoints=len(names),
    )
