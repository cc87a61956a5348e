"""What a person asks for by name comes with what it is computed from, and with nothing else."""

from pathlib import Path

import pytest

from lorif_assets.automation.selection import selected_assets
from lorif_assets.config.settings import load_settings

OF_SCORES = {"kfac_bases", "gradient_factors", "ekfac_preconditioners"}


@pytest.mark.parametrize(
    ("teacher", "of_scores"), [("gradient_cosine", set()), ("subset_losses", set()), ("lorif", OF_SCORES)]
)
def test_an_encoder_comes_with_the_factors_only_where_its_teacher_scores_by_them(
    tmp_path: Path, teacher: str, of_scores: set[str]
) -> None:
    toml = tmp_path / "lorif.toml"
    sections = f'[influcoder]\nenabled = true\nteacher = "{teacher}"\n[evaluation]\ncommand = ["true"]\n'
    toml.write_text(f'[recipe]\ncurvature = "ekfac"\n{sections}')
    settings = load_settings(toml)
    chosen = {asset.name for asset in selected_assets(settings, ["influcoder_agreement"])}
    assert chosen & OF_SCORES == of_scores
    assert chosen - OF_SCORES == {
        *("training_examples", "query_examples", "checkpoints"),
        *("influence_targets", "influcoder_encoder", "influcoder_agreement"),
    }
