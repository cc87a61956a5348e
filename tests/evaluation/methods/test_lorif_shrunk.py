"""The method `lorif_shrunk` on a lake: posterior means by the noise of its own query set's scores."""

import numpy as np
import pytest

from lorif_assets.attribution.checkpoint import AttributedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.exact_influence import exact_scores
from lorif_assets.attribution.score_noise import ScoreNoise
from lorif_assets.attribution.whole_gradients import WholeGradients
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.methods import MethodName
from lorif_assets.evaluation.methods.lorif import lorif_scores, shrunk_scores
from lorif_assets.mathematics.scores.shrinkage import noise_share, shrunk
from lorif_assets.progress import Progress
from tests.evaluation.methods.test_relatif import NEWEST, inputs_of


@pytest.fixture(params=["svd", "ekfac"])
def project(request):
    return request.getfixturevalue({"svd": "tiny_project", "ekfac": "ekfac_project"}[request.param])


@pytest.fixture
def inputs(project):
    return inputs_of(project)


def exact(inputs):
    settings, batch = ExactScoreSettings(), inputs.settings.batch
    stored = StoredCheckpoint.read(inputs.lake, NEWEST, inputs.settings.recipe)
    checkpoint = AttributedCheckpoint(stored, inputs.attributed)
    whole = WholeGradients.of(checkpoint, settings)
    with Progress("exact", 1, "tok") as progress:
        inverses = whole.inverses(batch, progress)
        found = exact_scores(
            whole, inverses, inputs.queries.tokenized, inputs.examples.tokenized, settings, batch, progress
        )
    return checkpoint, found.scores.numpy()


def test_the_noise_is_the_disagreement_with_whole_gradients_where_every_pair_is_sampled(inputs):
    checkpoint, scores = exact(inputs)
    (lorif,) = lorif_scores(inputs).values()
    expected = noise_share(lorif.scores, scores)
    assert 0 < expected < 1
    found = ScoreNoise(checkpoint, inputs.settings.batch).share(inputs.queries.tokenized)
    # FP32 sums of the same pairs in other blocks, and a fit to the same examples in another order.
    assert found == pytest.approx(expected, abs=1e-3)


def test_scores_are_posterior_means_and_rank_as_lorifs_do(inputs):
    (lorif,), (found,) = lorif_scores(inputs).values(), shrunk_scores(inputs).values()
    checkpoint, _ = exact(inputs)
    share = ScoreNoise(checkpoint, inputs.settings.batch).share(inputs.queries.tokenized)
    np.testing.assert_allclose(
        found.scores, shrunk(lorif.scores, share), rtol=1e-3, atol=1e-6 * np.abs(lorif.scores).max()
    )
    for before, after in zip(lorif.scores, found.scores, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= 0).all()
    assert found.bytes_per_example == lorif.bytes_per_example


def test_it_is_asked_for_by_name():
    assert MethodName.LORIF_SHRUNK not in EvaluationSettings().methods
