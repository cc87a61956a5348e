"""The section [influcoder]: which change renews what."""

from typing import Any

import pytest
from pydantic import ValidationError

from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.errors import SettingsError
from lorif_assets.influcoder.extra import require_influcoder

PLAIN, RECIPE = InflucoderSettings(), Recipe()


@pytest.mark.parametrize(
    "change", [{"sketch_dim": 64}, {"anchors": 7}, {"teacher": "lorif"}, {"lora_rank": 2}, {"seed": 3}]
)
def test_what_targets_depend_on_renews_targets_and_encoder(change: dict[str, Any]) -> None:
    changed = InflucoderSettings(**change)
    assert changed.targets_hash(RECIPE) != PLAIN.targets_hash(RECIPE)
    assert changed.distillation_hash(RECIPE) != PLAIN.distillation_hash(RECIPE)


@pytest.mark.parametrize(
    "change", [{"epochs": 2}, {"encoder": "other"}, {"alpha": 1.0}, {"encoder_length": 64}, {"heads": True}]
)
def test_what_only_training_depends_on_leaves_the_targets(change: dict[str, Any]) -> None:
    changed = InflucoderSettings(**change)
    assert changed.targets_hash(RECIPE) == PLAIN.targets_hash(RECIPE)
    assert changed.distillation_hash(RECIPE) != PLAIN.distillation_hash(RECIPE)


def test_only_the_teacher_lorif_depends_on_the_curvature() -> None:
    other, lorif = Recipe(fisher_damping=3), InflucoderSettings(teacher="lorif")
    assert PLAIN.targets_hash(other) == PLAIN.targets_hash(RECIPE)
    assert lorif.targets_hash(other) != lorif.targets_hash(RECIPE)


def test_recall_is_hashed_only_where_it_is_used() -> None:
    assert Recipe(candidates=5).score_hash == RECIPE.score_hash
    assert Recipe(recall="influcoder").score_hash != RECIPE.score_hash
    assert Recipe(recall="influcoder", candidates=5).score_hash != Recipe(recall="influcoder").score_hash


def test_recall_without_an_encoder_or_with_every_score_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs the encoder"):
        Settings(recipe=Recipe(recall="influcoder"))
    with pytest.raises(ValidationError, match="asks for every score"):
        Recipe(recall="influcoder", top_k="all")


def test_a_missing_library_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_influcoder()
    monkeypatch.setattr("lorif_assets.influcoder.extra.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'lorif-assets\[influcoder\]'"):
        require_influcoder()
