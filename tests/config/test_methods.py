"""The list of comparison methods: what follows from an entry."""

import tomllib
from pathlib import Path

import pytest

from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.methods import MethodName, method_explanation, method_title
from lorif_assets.evaluation.methods.evaluated_scores import scoring_function

OF_ALWAYS = (
    "lorif",
    "lorif_paper",
    "dense_logra",
    "trak",
    "gradient_dot",
    "gradient_cosine",
    "influcoder",
    "representation",
    "bm25",
    "random",
    "lorif_shrunk",
)


def test_the_default_methods_are_those_that_stored_evaluations_have_in_their_order():
    assert EvaluationSettings().methods == OF_ALWAYS


def test_methods_that_are_not_compared_by_default_are_named_in_the_settings_with_their_extra():
    description = EvaluationSettings.model_fields["methods"].description
    others = set(MethodName) - set(EvaluationSettings().methods)
    assert MethodName.EKFAC in others
    assert all(name in description for name in others)
    assert "ekfac (needs the extra ekfac)" in description


@pytest.mark.parametrize("method", MethodName)
def test_every_method_has_a_function_a_title_and_an_explanation(method):
    assert callable(scoring_function(method.definition.function))
    assert method_title(method) == method.definition.title != ""
    assert method_explanation(method)


def test_a_method_that_is_listed_no_more_goes_by_its_name():
    assert method_title("old_way") == "old way"
    assert method_explanation("old_way") == ""


@pytest.mark.parametrize("extra", sorted({method.definition.extra for method in MethodName if method.definition.extra}))
def test_an_extra_that_a_method_names_is_one_of_the_project(extra):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
