import pytest
import torch

from lorif_assets.config.recipe import Recipe
from lorif_assets.evaluation.methods.layer_trials import LayerTrials
from lorif_assets.mathematics.curvature.kfac_bases import KfacCovariances

N, Q, D1, D2 = 40, 3, 6, 5


@pytest.fixture
def gradients():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, D1, D2, generator=generator), torch.randn(Q, D1, D2, generator=generator)


@pytest.fixture
def bases():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(80, D1, generator=generator), torch.randn(80, D2, generator=generator)
    return KfacCovariances.empty(D1, D2, torch.device("cpu")).add(*tokens).bases(0.1)


def trials(gradients, recipe, rank, bases=None):
    return LayerTrials(*gradients, [(recipe, rank)], bases)


@pytest.mark.parametrize("n", [N, D1 * D2 - 5], ids=["more examples than numbers", "fewer"])
def test_dense_scores_are_those_of_the_damped_inverse(gradients, n):
    gradients = gradients[0][:n], gradients[1]
    g, q = (x.flatten(1).double() for x in gradients)
    h = g.mT @ g
    expected = q @ torch.linalg.inv(h + 0.5 * h.trace() / len(h) * torch.eye(len(h))) @ g.mT
    assert torch.allclose(trials(gradients, Recipe(), 1).dense_scores(0.5).double(), expected, rtol=1e-4, atol=1e-6)


def test_full_rank_and_all_eigenpairs_give_the_dense_scores(gradients):
    recipe = Recipe(curvature="svd", r=D1 * D2, oversample=0, damping=1.0, factor_dtype="fp32")
    layer = trials(gradients, recipe, D2)
    assert torch.allclose(layer.scores(recipe, D2), layer.dense_scores(1.0), rtol=1e-3, atol=1e-5)


def test_whitened_factors_of_full_rank_give_ekfacs_scores(gradients, bases):
    recipe = Recipe(curvature="ekfac", factor_dtype="fp32", fisher_damping=0.2)
    examples, queries = (bases.rotate(x) for x in gradients)
    eigenvalues = examples.square().mean(0)
    expected = torch.einsum("qij,nij->qn", queries / (eigenvalues + 0.2 * eigenvalues.mean()), examples)
    assert torch.allclose(trials(gradients, recipe, D2, bases).scores(recipe, D2), expected, rtol=1e-3, atol=1e-4)


def test_fewer_components_are_the_leading_ones(gradients):
    recipe = Recipe(curvature="svd", factor_dtype="fp32", r=0)
    strong = gradients[0][:, :, :1] @ gradients[0][:, :1] + 0.1 * gradients[0], gradients[1]
    alone = trials(strong, recipe, 1).scores(recipe, 1)
    among_more = LayerTrials(*strong, [(recipe, 1), (recipe, 4)], None).scores(recipe, 1)
    assert torch.allclose(alone, among_more, rtol=0.01, atol=0.01 * float(alone.abs().max()))


def test_a_layer_without_gradients_scores_zero(gradients):
    nothing = torch.zeros_like(gradients[0]), gradients[1]
    assert trials(nothing, Recipe(), 1).dense_scores(1.0).eq(0).all()


def test_ekfac_without_bases_is_refused(gradients):
    recipe = Recipe(curvature="ekfac")
    with pytest.raises(ValueError, match="needs the layer's bases"):
        trials(gradients, recipe, 1).scores(recipe, 1)
