"""Slopes of single tokens' losses: central differences of the model's own losses, and sums that are <M, gradient>."""

import copy

import pytest
import torch

from lorif_assets.mathematics.gradients.collector import GradientCollector
from lorif_assets.mathematics.gradients.layers import LayerError, select_layers
from lorif_assets.mathematics.gradients.loss_slopes import DirectionalPasses
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL
from tests.mathematics.gradients.families import tiny_model
from tests.mathematics.references import dense_projection, padded_batch

FAMILIES = ("gpt2", "qwen3", "roberta", "ctrl", "mamba", "mixtral", "gpt_oss", "opt")
STEP = 1e-6


def random_directions(projections, n, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return {p.layer.name: torch.randn(n, p.d1, p.d2, generator=generator, dtype=torch.float64) for p in projections}


def losses_of_tokens(model, ids, labels):
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    losses = torch.zeros(len(ids), dtype=torch.float64)
    for t, label in enumerate(labels[1:], start=1):
        if label != IGNORED_LABEL:
            losses[t] = -torch.log_softmax(logits[t - 1], dim=-1)[label]
    return losses


@torch.no_grad()
def central_differences(model, projections, directions, example_index, ids, labels):
    """(loss(W + h M) - loss(W - h M)) / 2 h of each token, M = P_in direction P_out^T, by the model's own forward pass."""
    found = []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        for projection in projections:
            p_in, p_out = dense_projection(projection)
            whole = p_in @ directions[projection.layer.name][example_index] @ p_out.T
            module = moved.get_submodule(projection.layer.name)
            module.weight += sign * STEP * (whole if type(module).__name__ == "Conv1D" else whole.T)
        found.append(losses_of_tokens(moved, ids, labels))
    return (found[0] - found[1]) / (2 * STEP)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("include", [(), ("*attn*", "*mlp*", "lm_head")])
def test_each_token_s_slope_is_the_central_difference_of_its_loss(gpt2, examples, factor, include):
    model = copy.deepcopy(gpt2).double().eval()
    # A tied head would move with the embeddings.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    projections = [
        layer_projection(layer, Projection(factor=factor, seed=7)) for layer in select_layers(model, include)
    ]
    directions = random_directions(projections, len(examples))
    batch = padded_batch(examples, 14, "right")
    with GradientCollector(model, projections) as collector:
        hidden = collector.collect(batch).hidden
    passes = DirectionalPasses(model, projections)
    found = passes.slopes(batch, directions)
    torch.testing.assert_close(passes.slopes(batch, directions, hidden), found)
    for row, (ids, labels) in enumerate(examples):
        expected = central_differences(model, projections, directions, row, ids, labels)
        torch.testing.assert_close(found[row, : len(ids)], expected, rtol=1e-5, atol=1e-6)
        assert not found[row, len(ids) :].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_slopes_sum_to_the_product_of_direction_and_gradient_in_every_kind_of_model(family, examples):
    model = tiny_model(family).double()
    projections = [layer_projection(layer, Projection(factor=2, seed=7)) for layer in select_layers(model)]
    directions = random_directions(projections, len(examples))
    batch = padded_batch(examples, 12, "right")
    with GradientCollector(model, projections) as collector:
        collected = collector.collect(batch)
    gradients = collected.gradients
    expected = sum((gradients[name] * direction).sum((1, 2)) for name, direction in directions.items())
    for hidden in (None, collected.hidden):
        found = DirectionalPasses(model, projections).slopes(batch, directions, hidden)
        torch.testing.assert_close(found.sum(1).double(), expected.double(), rtol=1e-4, atol=1e-4)


def test_logits_in_chunks_give_the_slopes_of_logits_at_once(llama, examples):
    model = copy.deepcopy(llama).double()
    projections = [layer_projection(layer, Projection(factor=1, seed=7)) for layer in select_layers(model, ("*",))]
    directions = random_directions(projections, len(examples))
    batch = padded_batch(examples, 12, "right")
    whole, chunks = (DirectionalPasses(model, projections, n).slopes(batch, directions) for n in (1 << 20, 300))
    torch.testing.assert_close(chunks, whole)


def test_a_model_is_left_as_it_was(gpt2, examples):
    model = copy.deepcopy(gpt2).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    projections = [layer_projection(layer, Projection(factor=2, seed=7)) for layer in select_layers(model)]
    directions = {name: side.float() for name, side in random_directions(projections, len(examples)).items()}
    DirectionalPasses(model, projections).slopes(padded_batch(examples, 12, "right"), directions)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.transformer.h[0].attn.c_attn._forward_hooks


def test_a_model_without_forward_derivatives_is_refused_with_what_lacks_them(gpt2, examples):
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    model = copy.deepcopy(gpt2).double()
    model.transformer.ln_f.register_forward_hook(lambda _module, _inputs, output: Opaque.apply(output))
    projections = [layer_projection(layer, Projection(factor=2, seed=7)) for layer in select_layers(model)]
    with pytest.raises(LayerError, match="GPT2LMHeadModel cannot be differentiated forwards"):
        DirectionalPasses(model, projections).slopes(
            padded_batch(examples, 12, "right"), random_directions(projections, len(examples))
        )
