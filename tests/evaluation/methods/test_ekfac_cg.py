"""EK-FAC and conjugate gradients as a method: the scores that exact re-ranking would give to every pair."""

from dataclasses import replace

import numpy as np
import pytest

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.exact.exact_influence import exact_scores
from lorif_assets.attribution.fitting.whole_gradients import WholeGradients, unprojected
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.evaluation.methods.ekfac_cg import conjugate_gradient_scores
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

NEWEST, QUERY_SET = "step-000200", "questions"


@pytest.fixture(scope="module")
def inputs(tiny_project):
    settings, lake, models = tiny_project.settings, tiny_project.lake, tiny_project.opened.checkpoints
    attributed = StoredCheckpoint.read(lake, NEWEST, settings.recipe).load(models, DeviceGroup.of("cpu")).model
    return MethodInputs.load(tiny_project.opened, attributed, [QUERY_SET])


@pytest.fixture(scope="module")
def scored(inputs):
    return conjugate_gradient_scores(inputs)["ekfac_cg"]


def by(inputs, **solver):
    """Scores of every pair by exact re-ranking's own function, with the whole corpus as its sample."""
    examples, batch = inputs.examples.tokenized, inputs.settings.batch
    whole = WholeGradients(unprojected(inputs.attributed), examples, None)
    with Progress("exact", 1, "tok") as progress:
        curvature = whole.curvature(batch, progress)
        settings = ExactScoreSettings(**solver)
        return exact_scores(curvature, inputs.queries.tokenized, examples, settings, batch, progress).scores.numpy()


def test_scores_are_those_of_two_rounds_of_exact_re_ranking(inputs, scored):
    # The corpus has fewer examples than the sample may have, so that all are in it.
    expected = by(inputs, query_solver="cg", cg_rounds=2, cg_examples=256)
    np.testing.assert_allclose(scored.scores, expected, rtol=0.01, atol=0.01 * np.abs(expected).max())
    assert not np.allclose(
        scored.scores, by(inputs, query_solver="ekfac"), rtol=0.01, atol=0.01 * np.abs(expected).max()
    )


def test_queries_that_are_solved_for_in_groups_have_the_same_scores(inputs, scored):
    narrow = inputs.settings.model_copy(update={"batch": inputs.settings.batch.model_copy(update={"query_mib": 0})})
    grouped = conjugate_gradient_scores(replace(inputs, settings=narrow))["ekfac_cg"]
    np.testing.assert_allclose(grouped.scores, scored.scores, rtol=1e-3, atol=1e-3 * np.abs(scored.scores).max())


def test_nothing_is_kept_of_an_example(scored):
    assert (scored.bytes_per_example, scored.scores.dtype) == (0.0, np.float32)
    assert scored.shared_bytes > 0
