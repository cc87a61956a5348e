"""The method `lorif_shrunk` on a lake: posterior means by the noise of its own query set's scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.exact import score_noise
from lorif_assets.attribution.exact.exact_influence import exact_scores
from lorif_assets.attribution.exact.score_noise import noise_shares
from lorif_assets.attribution.fitting.whole_gradients import WholeGradients
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.groups import GroupSettings
from lorif_assets.config.methods import MethodName
from lorif_assets.data.tokens.tokenization import Objective, Term
from lorif_assets.evaluation.methods.lorif import lorif_scores, shrunk_scores
from lorif_assets.mathematics.gradients.collector import GradientCollector
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
        curvature = whole.curvature(batch, progress)
        found = exact_scores(curvature, inputs.queries.tokenized, inputs.examples.tokenized, settings, batch, progress)
    return checkpoint, found.scores.numpy()


def measured(checkpoint, inputs, **how):
    (share,) = noise_shares(checkpoint, {"all": inputs.queries.tokenized}, inputs.settings.batch, **how).values()
    return share


def test_the_noise_is_the_disagreement_with_whole_gradients_where_every_pair_is_sampled(inputs):
    checkpoint, scores = exact(inputs)
    (lorif,) = lorif_scores(inputs).values()
    expected = noise_share(lorif.scores, scores)
    assert 0 < expected < 1
    found = measured(checkpoint, inputs)
    # FP32 sums of the same pairs in other blocks, and a fit to the same examples in another order.
    assert found == pytest.approx(expected, abs=1e-3)


def test_it_is_the_same_with_memory_for_one_layer_at_a_time(inputs, monkeypatch):
    checkpoint, _ = exact(inputs)
    at_once = measured(checkpoint, inputs)
    fits = []
    fitted = WholeGradients._fitted
    monkeypatch.setattr(WholeGradients, "_fitted", lambda self, *how: fits.append(self) or fitted(self, *how))
    monkeypatch.setattr(score_noise, "free_memory", lambda devices: 0)
    assert measured(checkpoint, inputs) == pytest.approx(at_once, abs=1e-5)
    layers = list(inputs.attributed.record.layer_shapes)
    assert [list(part.attributed.record.layer_shapes) for part in fits] == [[layer] for layer in layers]


def test_wide_sides_are_projected_but_not_to_less_than_the_recipe_leaves_of_them(inputs):
    checkpoint, _ = exact(inputs)
    narrow = WholeGradients.of(checkpoint, ExactScoreSettings(), widest=1).attributed
    assert narrow.record.layer_shapes == checkpoint.model.record.layer_shapes
    between = WholeGradients.of(checkpoint, ExactScoreSettings(), widest=24).attributed.record.layer_shapes
    layers = [projection.layer for projection in inputs.attributed.projections]
    # The recipe leaves half of a side.
    expected = {layer.name: [min(side, max(24, side // 2)) for side in (layer.d_in, layer.d_out)] for layer in layers}
    assert {layer: list(shape) for layer, shape in between.items()} == expected
    assert {24, 32} < {side for shape in expected.values() for side in shape}
    # What a projection adds is noise that is not seen from within it.
    assert measured(checkpoint, inputs, widest=1) < measured(checkpoint, inputs)


def test_an_example_of_the_sample_that_is_not_finite_is_left_out(inputs, monkeypatch, caplog):
    checkpoint, _ = exact(inputs)
    whole = WholeGradients.of(checkpoint, ExactScoreSettings())
    odd, without = whole.sample[3], [*whole.sample[:3], *whole.sample[4:]]
    marked = list(odd.input_ids)
    with Progress("fit", 1, "tok") as progress:
        expected = replace(whole, sample=without).curvature(inputs.settings.batch, progress)
        collected = GradientCollector.stream

        def spoilt(self, batch, sink, *how):
            rows = [at for at, ids in enumerate(batch.input_ids.tolist()) if ids[: len(marked)] == marked]

            def spoiling(layer, places, gradients):
                for at in rows:
                    if places.start <= at < places.stop:
                        gradients[at - places.start] = float("nan")
                sink(layer, places, gradients)

            return collected(self, batch, spoiling if rows else sink, *how)

        monkeypatch.setattr(GradientCollector, "stream", spoilt)
        found = whole.curvature(inputs.settings.batch, progress)
    assert [example.example_id for example in found.sample] == [example.example_id for example in without]
    assert f"not finite ({odd.example_id})" in caplog.text
    for layer, inverse in found.inverses.items():
        torch.testing.assert_close(inverse.eigenvalues, expected.inverses[layer].eigenvalues, rtol=0.01, atol=1e-6)


def test_a_query_set_with_a_query_that_is_not_finite_has_no_share_and_leaves_the_others_theirs(inputs):
    checkpoint, _ = exact(inputs)
    queries = inputs.queries.tokenized
    spoilt = Objective("scalar", (Term(1.0, queries[0]),), lambda output: output.logits.sum((1, 2)) * float("nan"))
    failing = replace(queries[0], objective=spoilt)
    found = noise_shares(checkpoint, {"failing": [failing], "none": [], "all": queries}, inputs.settings.batch)
    assert found == {"all": pytest.approx(measured(checkpoint, inputs))}
    # Nothing is fitted for nothing.
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(WholeGradients, "of")
        assert noise_shares(checkpoint, {"failing": [failing], "none": []}, inputs.settings.batch) == {}


def test_scores_are_posterior_means_and_rank_as_lorifs_do(inputs):
    (lorif,), (found,) = lorif_scores(inputs).values(), shrunk_scores(inputs).values()
    checkpoint, _ = exact(inputs)
    share = measured(checkpoint, inputs)
    np.testing.assert_allclose(
        found.scores, shrunk(lorif.scores, share), rtol=1e-3, atol=1e-6 * np.abs(lorif.scores).max()
    )
    for before, after in zip(lorif.scores, found.scores, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= 0).all()
    assert found.bytes_per_example == lorif.bytes_per_example


def test_it_is_held_against_retraining_by_default_as_sums_are_shrunk_by_default():
    assert GroupSettings().shrunk
    assert MethodName.LORIF_SHRUNK in EvaluationSettings().methods
