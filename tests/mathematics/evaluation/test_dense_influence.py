import pytest
import torch

from lorif_assets.mathematics.evaluation.dense_influence import (
    dot_products,
    squared_norms,
    trak_scores,
)

WIDTHS = {"a": 6, "b": 4}


def gradients(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(n, width, generator=generator, dtype=torch.float64) for layer, width in WIDTHS.items()}


def joined(by_layer):
    return torch.cat([by_layer[layer] for layer in WIDTHS], dim=1)


def test_dot_products_and_norms_are_those_of_all_layers_together():
    left, right = gradients(3), gradients(5, seed=1)
    assert torch.allclose(dot_products(left, right), joined(left) @ joined(right).mT)
    assert torch.allclose(squared_norms(left), joined(left).square().sum(1))


def test_trak_scores_are_the_formula_and_ignore_what_the_model_is_sure_of():
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    queries, losses = features[:2] + 0.1, torch.linspace(0, 3, 30)
    expected = queries @ torch.linalg.inv(features.mT @ features) @ features.mT * (1 - torch.exp(-losses.double()))
    scores = trak_scores(queries, features, losses)
    assert torch.allclose(scores.double(), expected, rtol=1e-3, atol=1e-6)
    assert scores[:, 0].abs().max() == pytest.approx(0.0)
