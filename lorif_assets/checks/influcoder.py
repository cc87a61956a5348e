"""Checks of Influcoder: it is measured on nothing that it was trained on."""

import dagster as dg

from lorif_assets.assets.influcoder_agreement import influcoder_agreement
from lorif_assets.checks.check_result import check_result
from lorif_assets.config.settings import Settings
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.lake.influcoder_tables import INFLUENCE_TARGETS
from lorif_assets.lake.lake import Lake


@dg.asset_check(
    asset=influcoder_agreement.definition,
    description="No text that Influcoder is measured on is among those it is trained on, not even nearly word for word.",
)
def held_out_texts_are_apart(settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Compare the distilled with the held-out texts of every checkpoint, for the served split and each evaluation seed."""
    from lorif_assets.influcoder.leakage_audit import leaks

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
