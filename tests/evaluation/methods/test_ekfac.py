"""The method `ekfac`: scores by kronfluence, an extra."""

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.methods import MethodName
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.methods.ekfac import ekfac_scores, with_plain_linear_layers
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.methods.libraries import require_libraries
from lorif_assets.evaluation.methods.recipe_trials import try_recipes
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

NEWEST, QUERY_SET = "step-000200", "questions"


@pytest.fixture
def inputs(tiny_project):
    settings, lake = tiny_project.settings, tiny_project.lake
    models = tiny_project.opened.checkpoints
    attributed = StoredCheckpoint.read(lake, NEWEST, settings.recipe).load(models, DeviceGroup.of("cpu")).model
    return MethodInputs.load(tiny_project.opened, attributed, [QUERY_SET])


def own_scores(inputs, settings):
    """Our EK-FAC at full rank, without projection, at the same layers."""
    recipe = Recipe(
        include_layers=settings.recipe.include_layers,
        max_length=settings.recipe.max_length,
        curvature="ekfac",
        factor_dtype="fp32",
        rank=64,
        projection_factor=1,
        fisher_damping=0.1,
    )
    examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
    with Progress("layers", 1, "layers") as progress:
        found = try_recipes(inputs.attributed, [recipe], examples, queries, settings.batch, progress)
    return found.outcomes[0].scores.numpy()


def test_without_the_library_the_error_names_the_extra_and_the_setting(inputs, monkeypatch):
    monkeypatch.setitem(sys.modules, "kronfluence", None)
    with pytest.raises(SettingsError, match=r"`evaluation.methods`.*pip install 'lorif-assets\[ekfac\]'"):
        ekfac_scores(inputs)


def test_steps_that_take_several_devices_are_refused(inputs):
    spread = replace(inputs, attributed=replace(inputs.attributed, devices=DeviceGroup.of("cuda:0", "cuda:1")))
    with pytest.raises(
        SettingsError, match=r"but steps take cuda:0 \+ cuda:1 together; take `ekfac` out of `evaluation.methods`"
    ):
        ekfac_scores(spread)


def test_it_is_asked_for_by_name_only():
    assert MethodName.EKFAC not in EvaluationSettings().methods
    assert EvaluationSettings(methods=("ekfac",)).methods == (MethodName.EKFAC,)


def test_a_model_with_plain_linear_layers_is_the_same_function_and_the_original_is_untouched(inputs):
    model, layers = inputs.attributed.model, list(inputs.attributed.record.layer_shapes)
    kinds = [type(module) for module in model.modules()]
    copied, tracked = with_plain_linear_layers(model, [*layers, "lm_head"])
    ids = torch.arange(3, 20)[None]
    torch.testing.assert_close(copied(input_ids=ids).logits, model(input_ids=ids).logits)
    assert [type(module) for module in model.modules()] == kinds
    for name in tracked:
        assert type(copied.get_submodule(name)) is torch.nn.Linear
        assert copied.get_submodule(name).bias is None


@pytest.mark.slow
def test_scores_rank_examples_as_our_own_ekfac_at_full_rank_does(inputs, tiny_project):
    pytest.importorskip("kronfluence", reason="needs the extra `ekfac`")
    found = ekfac_scores(inputs)["ekfac"]
    expected = own_scores(inputs, tiny_project.settings)
    assert found.scores.shape == (len(inputs.queries.ids), len(inputs.examples.ids))
    for mine, theirs in zip(expected, found.scores, strict=True):
        assert spearmanr(mine, theirs).statistic > 0.99
    assert found.bytes_per_example == 0
    assert found.query_seconds > 0


@pytest.mark.parametrize(
    ("fields", "library"),
    [
        ({"methods": ("lorif", "ekfac")}, "kronfluence"),
        ({"methods": ("lorif", "embeddings"), "text_encoder": "x"}, "sentence_transformers"),
        ({"methods": ("lorif",), "removal_methods": ("ekfac",), "removal_query_sets": ("first",)}, "kronfluence"),
    ],
)
def test_libraries_of_methods_are_looked_for_before_any_is_computed(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], library: str
) -> None:
    monkeypatch.setattr("lorif_assets.evaluation.methods.ekfac.find_spec", lambda name: None)
    monkeypatch.setattr("lorif_assets.influcoder.extra.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=library):
        require_libraries(EvaluationSettings(**fields))
    require_libraries(EvaluationSettings(methods=("lorif",), removal_methods=("ekfac",)))
