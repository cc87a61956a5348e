"""EOGP, its cross-fit and EOGP-R as methods, against plain matrices of whole gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.fitting.whole_gradients import unprojected
from lorif_assets.attribution.forecast.cost import stored_bytes_per_example
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.methods import MethodName
from lorif_assets.config.sections import BatchSettings
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.methods import dense_gradients as dense_gradients_module
from lorif_assets.evaluation.methods import eogp
from lorif_assets.evaluation.methods.dense_gradients import dense_gradients
from lorif_assets.evaluation.methods.eogp import eogp_scores
from lorif_assets.evaluation.methods.evaluated_scores import method_versions
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KroneckerPreconditioner
from lorif_assets.mathematics.evaluation.one_bit_codes import axes_by_layer, energy, half_whitened, halves
from lorif_assets.models.devices import DeviceGroup

NEWEST, QUERY_SET = "step-000200", "questions"
NAMES = ("eogp", "eogp_crossfit", "eogp_random")


@pytest.fixture(scope="module")
def inputs(ekfac_project):
    settings, lake, models = ekfac_project.settings, ekfac_project.lake, ekfac_project.opened.checkpoints
    attributed = StoredCheckpoint.read(lake, NEWEST, settings.recipe).load(models, DeviceGroup.of("cpu")).model
    return MethodInputs.load(ekfac_project.opened, attributed, [QUERY_SET])


@pytest.fixture(scope="module")
def scored(inputs):
    return eogp_scores(inputs)


def budget(inputs):
    return stored_bytes_per_example(inputs.attributed.record, inputs.settings.recipe)


def plainly(inputs, fitted_to):
    """Scores along the PCA of some examples: signs times a scale, with singular vectors of the rows themselves."""
    from lorif_assets.attribution.fitting.fit_bases import covariances
    from lorif_assets.progress import Progress

    attributed, batch, recipe = unprojected(inputs.attributed), inputs.settings.batch, inputs.settings.recipe
    examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
    layers = list(attributed.record.layer_shapes)
    with Progress("covariances", 1, "tok") as progress:
        sums = covariances(attributed, examples, batch, progress, seed=0)
    z, z_q, energies, dense = {}, {}, {}, {}
    for layer in layers:
        rows, asked = (dense_gradients(attributed, [layer], chosen, batch)[layer] for chosen in (examples, queries))
        bases = sums[layer].bases(recipe.whitening_damping)
        fisher = FisherDiagonal.of(bases.rotate(rows)).eigenvalues
        inverse = KroneckerPreconditioner(bases, fisher, recipe.fisher_damping)
        z[layer], z_q[layer], energies[layer] = (
            half_whitened(inverse, rows),
            half_whitened(inverse, asked),
            energy(inverse),
        )
        dense[layer] = min(rows[0].numel(), len(examples) // 2)
    counts = axes_by_layer(energies, dense, budget(inputs))
    total = torch.zeros(len(queries), len(examples))
    for layer in layers:
        axes = torch.linalg.svd(z[layer][fitted_to]).Vh[: counts[layer]].mT
        coordinates = z[layer] @ axes
        scale = coordinates.abs().mean(1, keepdim=True).half().float()
        total += (z_q[layer] @ axes) @ (coordinates.sign() * scale).mT
    return total.numpy()


def test_scores_are_those_of_signs_along_the_singular_vectors_of_half_of_the_examples(inputs, scored):
    first, _ = halves(len(inputs.examples.ids), inputs.settings.evaluation.seed)
    expected = plainly(inputs, first)
    np.testing.assert_allclose(scored["eogp"].scores, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_the_cross_fit_codes_each_half_along_the_axes_of_the_other(inputs, scored):
    first, second = halves(len(inputs.examples.ids), inputs.settings.evaluation.seed)
    found = scored["eogp_crossfit"].scores
    for coded, fitted_to in ((first, second), (second, first)):
        expected = plainly(inputs, fitted_to)[:, coded]
        np.testing.assert_allclose(found[:, coded], expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_bytes_are_at_most_lorifs_and_what_is_shared_is_counted_apart(inputs, scored):
    assert all(0 < scored[name].bytes_per_example <= budget(inputs) for name in NAMES)
    axes = scored["eogp"].shared_bytes - scored["eogp_random"].shared_bytes
    assert axes > 0
    assert scored["eogp_crossfit"].shared_bytes == scored["eogp_random"].shared_bytes + 2 * axes


def test_too_few_bytes_for_every_layer_are_refused_with_what_to_do(inputs, monkeypatch):
    monkeypatch.setattr(eogp, "stored_bytes_per_example", lambda record, recipe: 3)
    with pytest.raises(
        SettingsError, match=r"3 bytes per example are too few.*take eogp, eogp_crossfit, eogp_random out"
    ):
        eogp_scores(inputs)


def test_gradients_for_which_there_is_no_memory_are_refused_with_layer_and_sizes(inputs, monkeypatch):
    monkeypatch.setattr(dense_gradients_module, "host_memory", lambda: 2**10)
    with pytest.raises(SettingsError, match=r"in the layer '.*' take .* GiB .* and 0\.0 are free; take eogp"):
        eogp_scores(inputs)


def test_whitened_gradients_are_held_once_and_raw_ones_batch_by_batch(inputs, monkeypatch):
    examples = inputs.examples.tokenized
    shapes = unprojected(inputs.attributed).record.layer_shapes.values()
    once = 4 * len(examples) * max(d1 * d2 for d1, d2 in shapes)
    most_raw = []

    def watched(preconditioner, gradients):
        most_raw.append(len(gradients))
        return half_whitened(preconditioner, gradients)

    monkeypatch.setattr(eogp, "half_whitened", watched)
    monkeypatch.setattr(dense_gradients_module, "host_memory", lambda: int(1.3 * once))
    small_batches = inputs.settings.model_copy(update={"batch": BatchSettings(tokens=128)})
    eogp_scores(replace(inputs, settings=small_batches))
    assert max(most_raw) < len(examples)
    monkeypatch.setattr(dense_gradients_module, "host_memory", lambda: once)
    with pytest.raises(SettingsError, match="take eogp"):
        eogp_scores(inputs)


def test_they_are_asked_for_by_name_and_their_versions_follow_the_recipes(ekfac_project):
    assert not {MethodName(name) for name in NAMES} & set(EvaluationSettings().methods)

    def versions(**recipe):
        project = ekfac_project.with_settings(recipe=recipe, evaluation={"methods": [*NAMES, "ekfac_cg"]})
        record = checkpoint_record(project.lake, NEWEST, ekfac_project.settings.recipe)
        return method_versions(project.opened, record, QUERY_SET)

    now, damped = versions(), versions(fisher_damping=0.5)
    assert len(set(now.values())) == len(now)
    assert {name for name in now if now[name] != damped[name]} == {*NAMES, "ekfac_cg"}
