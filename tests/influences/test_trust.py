"""The verdict."""

from datetime import UTC, datetime

import pytest

from lorif_assets.config.recipe import Recipe
from lorif_assets.influences.trust import CheckOutcome, Standing, trust
from lorif_assets.lake.attribution_tables import KFAC_BASES
from tests.stored_influences import LATE, SET, measured, put, stored_influences

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path):
    return stored_influences(tmp_path)


def verdict(lake, checks=(), recipe=None):
    return trust(lake, recipe or Recipe(), LATE, SET, checks)


def check(*, passed, is_warning=False):
    return CheckOutcome("factors_reproduce_gradients", passed, is_warning, "two layers are off", "compute again", NOW)


def test_what_nobody_measured_is_neither_trusted_nor_distrusted(lake):
    found = verdict(lake)
    assert found.standing is Standing.UNKNOWN
    assert "nobody has held these scores against retraining" in found.verdict


def test_scores_that_predict_retraining_are_trusted(lake):
    measured(lake, LATE, "lds", 0.41, 0.32, 0.47)
    found = verdict(lake, [check(passed=True)])
    assert (found.standing, found.verdict[:3]) == (Standing.GOOD, "Yes")
    assert any("0.41, 95 % interval 0.32 to 0.47" in finding.words for finding in found.findings)


def test_without_outcomes_of_checks_the_verdict_does_not_speak_of_them(lake):
    measured(lake, LATE, "lds", 0.41, 0.32, 0.47)
    found = verdict(lake)
    assert found.verdict == "Yes, as far as was measured: retraining agrees with the scores."
    assert "no outcome of a check is known" in [finding.words for finding in found.findings]
    assert "no check found a fault" in verdict(lake, [check(passed=True)]).verdict


def test_scores_that_predict_nothing_are_not(lake):
    measured(lake, LATE, "lds", 0.02, -0.05, 0.09)
    assert verdict(lake).standing is Standing.BAD


def test_a_failed_check_outweighs_what_was_measured_and_says_what_to_do(lake):
    measured(lake, LATE, "lds", 0.41, 0.32, 0.47)
    found = verdict(lake, [check(passed=False)])
    assert found.standing is Standing.BAD
    assert found.verdict.startswith("No: two layers are off")
    assert (found.findings[0].what, found.findings[0].remedy) == ("check factors_reproduce_gradients", "compute again")


def test_a_check_that_warns_asks_for_care(lake):
    found = verdict(lake, [check(passed=False, is_warning=True)])
    assert found.standing is Standing.CAUTION
    assert found.verdict == (
        "With care: nothing speaks against the scores, but one finding below says where to be careful."
    )


def test_scores_of_another_recipe_are_not_trusted(lake):
    found = verdict(lake, recipe=Recipe(top_k=7))
    assert found.standing is Standing.BAD
    assert "materialize `query_scores`" in (found.findings[0].remedy or "")


def test_bases_that_disagree_between_halves_of_the_sample_ask_for_care(lake):
    layers = {"a": 0.99, "b": 0.5}
    rows = [
        {"checkpoint": LATE, "layer": layer, "half_agreement": agreement, "n_examples": 64}
        for layer, agreement in layers.items()
    ]
    put(lake, KFAC_BASES, rows)
    (finding,) = (one for one in verdict(lake).findings if one.what == "curvature")
    assert (finding.standing, finding.remedy) == (Standing.CAUTION, "raise `recipe.kfac_examples`")
    assert "in 1 of 2 layers" in finding.words
