"""Products with the Gauss-Newton matrix: those of the dense matrix in FP64, and conjugate gradients that solve with it."""

import copy

import pytest
import torch

from lorif_assets.mathematics.curvature.conjugate_gradients import conjugate_gradients
from lorif_assets.mathematics.curvature.gauss_newton import gauss_newton_product
from lorif_assets.mathematics.gradients.collector import GradientCollector
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.loss_slopes import DirectionalPasses
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL
from tests.mathematics.references import padded_batch

LAYERS = ("*.1.attn.c_attn", "*.0.mlp.c_proj", "lm_head")


def untied(gpt2):
    model = copy.deepcopy(gpt2).double().eval()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def dense_matrix(model, layers, examples):
    """Sum over target tokens of J^T (diag(p) - p p^T) J, with J by plain autograd, in the layers' order as vec([I, O])."""
    modules = dict(model.named_modules())
    weights = [modules[layer.name].weight.requires_grad_(True) for layer in layers]
    size = sum(layer.d_in * layer.d_out for layer in layers)
    total = torch.zeros(size, size, dtype=torch.float64)
    for ids, labels in examples:
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        for t, label in enumerate(labels[1:]):
            if label == IGNORED_LABEL:
                continue
            rows = []
            for logit in logits[t]:
                found = torch.autograd.grad(logit, weights, retain_graph=True)
                rows.append(
                    torch.cat(
                        [
                            (g if type(modules[layer.name]).__name__ == "Conv1D" else g.T).flatten()
                            for layer, g in zip(layers, found, strict=True)
                        ]
                    )
                )
            jacobian, chances = torch.stack(rows), torch.softmax(logits[t].detach(), dim=0)
            total += jacobian.T @ (chances.diag() - torch.outer(chances, chances)) @ jacobian
    return total


@pytest.fixture(scope="module")
def tiny(gpt2):
    model = untied(gpt2)
    layers = select_layers(model, LAYERS)
    return model, layers, [layer_projection(layer, Projection(factor=1, seed=0)) for layer in layers]


def vector(flat, layers):
    parts = flat.split([layer.d_in * layer.d_out for layer in layers])
    return {layer.name: part.view(layer.d_in, layer.d_out) for layer, part in zip(layers, parts, strict=True)}


def flat(matrices, layers):
    return torch.cat([matrices[layer.name].flatten() for layer in layers])


@pytest.mark.parametrize("chunk_numbers", [1 << 20, 300])
def test_the_product_is_that_of_the_dense_matrix(tiny, examples, chunk_numbers):
    model, layers, projections = tiny
    some = examples[:3]
    dense = dense_matrix(copy.deepcopy(model), layers, some)
    v = torch.randn(len(dense), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    passes = DirectionalPasses(model, projections, chunk_numbers)
    with GradientCollector(model, projections, chunk_numbers) as collector:
        found = gauss_newton_product(passes, collector, padded_batch(some, 12, "right"), vector(v, layers), 1 << 20)
    torch.testing.assert_close(flat(found, layers), dense @ v, rtol=1e-8, atol=1e-8)


def test_it_is_symmetric_and_never_negative(tiny, examples):
    model, layers, projections = tiny
    generator = torch.Generator().manual_seed(2)
    size = sum(layer.d_in * layer.d_out for layer in layers)
    a, b = (vector(torch.randn(size, generator=generator, dtype=torch.float64), layers) for _ in range(2))
    passes, batch = DirectionalPasses(model, projections), padded_batch(examples, 12, "right")
    with GradientCollector(model, projections) as collector:
        of_a, of_b = (gauss_newton_product(passes, collector, batch, v, 1 << 20) for v in (a, b))
    left, right = (flat(x, layers) @ flat(y, layers) for x, y in ((a, of_b), (b, of_a)))
    torch.testing.assert_close(left, right)
    assert float(flat(a, layers) @ flat(of_a, layers)) > 0


def test_conjugate_gradients_solve_in_as_many_rounds_as_there_are_eigenvalues():
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64)).Q
    h = basis @ torch.tensor([1.0, 3.0, 10.0]).repeat(4).double().diag() @ basis.T
    g = torch.randn(12, generator=generator, dtype=torch.float64)

    def parts(x):
        return {"first": x[:6].view(2, 3), "second": x[6:].view(3, 2)}

    def whole(v):
        return torch.cat([v["first"].flatten(), v["second"].flatten()])

    found = conjugate_gradients(lambda v: parts(h @ whole(v)), lambda v: v, parts(g), rounds=3)
    torch.testing.assert_close(whole(found), torch.linalg.solve(h, g))
    # A perfect preconditioner needs one round, and further ones change nothing.
    inverse = torch.linalg.inv(h)
    for rounds in (1, 3):
        found = conjugate_gradients(
            lambda v: parts(h @ whole(v)), lambda v: parts(inverse @ whole(v)), parts(g), rounds
        )
        torch.testing.assert_close(whole(found), torch.linalg.solve(h, g))


def test_a_target_of_zeros_has_zeros_as_its_solution():
    zeros = {"layer": torch.zeros(2, 3)}
    found = conjugate_gradients(lambda v: v, lambda v: v, zeros, rounds=2)
    assert not found["layer"].any()
