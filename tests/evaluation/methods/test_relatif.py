"""The method `relatif` on a lake, against dense matrices in FP64."""

import numpy as np
import pytest
import torch

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint, averaged_attributions
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.methods import MethodName
from lorif_assets.evaluation.methods import lorif
from lorif_assets.evaluation.methods.evaluated_scores import method_versions
from lorif_assets.evaluation.methods.hybrid import hybrid_scores
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.methods.lexical import bm25_scores
from lorif_assets.evaluation.methods.lorif import lorif_scores
from lorif_assets.evaluation.methods.relatif import relatif_scores, self_influences
from lorif_assets.mathematics.scores.rank_fusion import reciprocal_rank_fusion
from lorif_assets.models.devices import DeviceGroup

NEWEST, QUERY_SET = "step-000200", "questions"


@pytest.fixture(params=["svd", "ekfac"])
def project(request):
    return request.getfixturevalue({"svd": "tiny_project", "ekfac": "ekfac_project"}[request.param])


def inputs_of(project):
    settings, lake, models = project.settings, project.lake, project.opened.checkpoints
    attributed = StoredCheckpoint.read(lake, NEWEST, settings.recipe).load(models, DeviceGroup.of("cpu")).model
    return MethodInputs.load(project.opened, attributed, [QUERY_SET])


def dense_inverse(project, stored, layer):
    """The layer's damped inverse as a matrix, and what turns stored factors into gradients: both [D, D], FP64."""
    cpu = torch.device("cpu")
    ready = stored.preconditioners.load(layer, cpu)
    if stored.record.frozen_bases is None:
        v, w, d = ready.vectors.double(), ready.eigenvalues.double(), len(ready.vectors)
        floor = ready.damping + ready.tail
        inverse = (torch.eye(d) - v @ v.mT) / floor + v @ torch.diag(1 / (w + ready.damping)) @ v.mT
        return inverse, torch.eye(d, dtype=torch.float64)
    bases = stored.record.frozen_bases.load(project.lake, layer, cpu)
    q = torch.kron(bases.q_in.double(), bases.q_out.double())
    eigenvalues = ready.eigenvalues.flatten()
    inverse = q @ torch.diag(1 / (eigenvalues + ready.damping * eigenvalues.mean())) @ q.mT
    return inverse, q @ torch.diag(1 / bases.scale.double().flatten())


def dense_self_influences(project):
    recipe, lake = project.settings.recipe, project.lake
    stored = StoredCheckpoint.read(lake, NEWEST, recipe)
    total = torch.zeros(stored.factors.n_examples, dtype=torch.float64)
    for layer in stored.record.layer_shapes:
        inverse, restore = dense_inverse(project, stored, layer)
        blocks = stored.factors.blocks([layer], 1_000, torch.device("cpu"))
        g = torch.cat([block[layer].dense() for block in blocks]).double() @ restore.mT
        total += torch.einsum("ni,ij,nj->n", g, inverse, g)
    return stored, total


def test_self_influences_are_those_of_dense_matrices(project):
    stored, expected = dense_self_influences(project)
    assert (expected > 0).all()
    torch.testing.assert_close(self_influences(inputs_of(project), stored), expected, rtol=1e-3, atol=0.0)


def test_scores_are_lorifs_over_the_root_of_self_influence(project):
    inputs = inputs_of(project)
    (plain,), (relatif,) = lorif_scores(inputs).values(), relatif_scores(inputs).values()
    stored, expected = dense_self_influences(project)
    by_id = {
        name: float(expected[at])
        for at, (name, _) in stored.factors.example_ids(range(stored.factors.n_examples)).items()
    }
    own = np.array([by_id[name] for name in inputs.examples.ids])
    np.testing.assert_allclose(relatif.scores, plain.scores / np.sqrt(own), rtol=1e-3)
    assert relatif.scores.dtype == np.float32
    assert relatif.bytes_per_example == plain.bytes_per_example + 4


def test_where_scores_are_averaged_over_checkpoints_self_influences_are(tiny_project):
    inputs = inputs_of(tiny_project.with_settings(recipe={"averaged_checkpoints": 2, "checkpoint_weights": "equal"}))
    (plain,), (relatif,) = lorif_scores(inputs).values(), relatif_scores(inputs).values()
    owns = [self_influences(inputs, one) for one in averaged_attributions(*context_of(inputs))]
    assert len(owns) == 2
    np.testing.assert_allclose(relatif.scores, plain.scores / np.sqrt(sum(owns) / 2), rtol=1e-5)


def test_with_shared_words_it_is_fused_by_ranks(project):
    inputs = inputs_of(project)
    (relatif,), (bm25,), (hybrid,) = (of(inputs).values() for of in (relatif_scores, bm25_scores, hybrid_scores))
    expected = reciprocal_rank_fusion([relatif.scores, bm25.scores])
    np.testing.assert_allclose(hybrid.scores, expected, rtol=1e-6)
    assert hybrid.bytes_per_example == relatif.bytes_per_example + bm25.bytes_per_example


def test_lorif_is_computed_once_for_all_methods_that_build_on_it(project, monkeypatch):
    scans = []
    scored = lorif.score_every_example
    monkeypatch.setattr(
        lorif, "score_every_example", lambda *args, **kwargs: scans.append(1) or scored(*args, **kwargs)
    )
    inputs = inputs_of(project)
    for method in (lorif_scores, relatif_scores, hybrid_scores, lorif.shrunk_scores):
        inputs.scores_of(method)
    assert len(scans) == 1
    inputs_of(project).scores_of(lorif_scores)
    assert len(scans) == 2


def context_of(inputs):
    recorded = StoredCheckpoint(inputs.lake, inputs.settings.recipe, inputs.attributed.record)
    return inputs.settings, inputs.models, recorded


def test_it_is_asked_for_by_name_and_its_version_follows_lorifs(tiny_project):
    assert MethodName.RELATIF not in EvaluationSettings().methods

    def versions(**recipe):
        project = tiny_project.with_settings(recipe=recipe, evaluation={"methods": ["lorif", "relatif", "bm25"]})
        record = checkpoint_record(project.lake, NEWEST, tiny_project.settings.recipe)
        return method_versions(project.opened, record, QUERY_SET)

    now, damped = versions(), versions(damping=2.0)
    assert len(set(now.values())) == 3
    assert {name for name in now if now[name] != damped[name]} == {"lorif", "relatif"}


def test_scores_of_a_version_that_took_self_influence_wrongly_are_out_of_date_and_no_others(tiny_project):
    """Where gradients are whitened by their leading eigenvectors alone, and there only, it was wrong."""

    def versions(**recipe):
        changed = tiny_project.with_settings(
            recipe={"curvature": "ekfac", **recipe}, evaluation={"methods": ["lorif", "relatif", "hybrid"]}
        )
        record = checkpoint_record(tiny_project.lake, NEWEST, tiny_project.settings.recipe)
        return method_versions(changed.opened, record, QUERY_SET)

    whole, by_some = versions(), versions(whitening_rank=2)
    # What BM25 reads has changed since for the second one, whatever the whitening.
    for method, edition in (("relatif", []), ("hybrid", [2])):
        assert whole[method] == content_hash([method, *edition, whole["lorif"]])
        assert by_some[method] != content_hash([method, *edition, by_some["lorif"]])
