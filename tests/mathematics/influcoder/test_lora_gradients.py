"""Batched gradients of a LoRA adapter: those of autograd, one sample at a time."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from lorif_assets.mathematics.gradients.batching import pad_right
from lorif_assets.mathematics.gradients.layers import LayerError
from lorif_assets.mathematics.influcoder.count_sketch import CountSketch
from lorif_assets.mathematics.influcoder.lora_gradients import adapter_layers, add_fresh_adapter, sketched_gradients
from tests.mathematics.references import Example, relative_error, token_loss

DIM = 512


@pytest.fixture(params=["gpt2", "llama"])
def adapted(request: pytest.FixtureRequest) -> nn.Module:
    model = copy.deepcopy(request.getfixturevalue(request.param)).eval()
    add_fresh_adapter(model, rank=4, seed=0)
    return model


def _train(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


def _autograd_features(model: nn.Module, examples: Sequence[Example]) -> torch.Tensor:
    """Each sample alone: autograd over every adapter weight, sketched coordinate by coordinate."""
    layers = adapter_layers(model)
    sketch = CountSketch.draw({layer.name: layer.d_in * layer.d_out for layer in layers}, DIM, 7)
    weights = [model.get_submodule(layer.name).weight for layer in layers]
    rows = []
    for ids, labels in examples:
        loss = token_loss(model(input_ids=torch.tensor([ids])).logits[0], labels)
        gradients = torch.autograd.grad(loss, weights)
        parts = {layer.name: g.T[None].contiguous() for layer, g in zip(layers, gradients, strict=True)}
        rows.append(sketch.apply(parts)[0])
    return nn.functional.normalize(torch.stack(rows), dim=1)


def _batched_features(model: nn.Module, examples: Sequence[Example], batches: Sequence[Sequence[int]]) -> torch.Tensor:
    padded = ((batch, pad_right(*zip(*(examples[i] for i in batch), strict=True))) for batch in batches)
    return sketched_gradients(model, padded, len(examples), DIM, seed=7)


def test_a_fresh_adapter_changes_nothing_that_the_model_says(gpt2: nn.Module, examples: list[Example]) -> None:
    model = copy.deepcopy(gpt2).eval()
    ids = torch.tensor([examples[0][0]])
    before = model(input_ids=ids).logits
    add_fresh_adapter(model, rank=4, seed=0)
    torch.testing.assert_close(model(input_ids=ids).logits, before)


def test_of_a_fresh_adapter_only_the_b_halves_carry_gradient(adapted: nn.Module, examples: list[Example]) -> None:
    assert {layer.name.split(".")[-2] for layer in adapter_layers(adapted)} == {"lora_B"}
    ids, labels = examples[0]
    halves = [parameter for name, parameter in adapted.named_parameters() if "lora_A" in name]
    loss = token_loss(adapted(input_ids=torch.tensor([ids])).logits[0], labels)
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, halves))


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
def test_features_equal_autograd_one_sample_at_a_time(
    adapted: nn.Module, examples: list[Example], trained: bool
) -> None:
    if trained:
        _train(adapted)
        assert {layer.name.split(".")[-2] for layer in adapter_layers(adapted)} == {"lora_A", "lora_B"}
    found = _batched_features(adapted, examples, [[2, 0, 5], [1, 4], [3]])
    assert relative_error(found, _autograd_features(adapted, examples)) < 1e-4


def test_what_shares_a_batch_does_not_matter(adapted: nn.Module, examples: list[Example]) -> None:
    together = _batched_features(adapted, examples, [list(range(len(examples)))])
    alone = _batched_features(adapted, examples, [[i] for i in range(len(examples))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_features_have_unit_norm(adapted: nn.Module, examples: list[Example]) -> None:
    features = _batched_features(adapted, examples, [[i] for i in range(len(examples))])
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(examples)))


def test_the_adapter_depends_on_its_seed_alone(gpt2: nn.Module) -> None:
    models = [copy.deepcopy(gpt2) for _ in range(3)]
    for model, seed, disturbance in zip(models, (0, 0, 1), (1, 2, 3), strict=True):
        torch.manual_seed(disturbance)
        add_fresh_adapter(model, rank=4, seed=seed)
    first, same, other = (
        torch.cat([p.flatten() for name, p in model.named_parameters() if "lora_A" in name]) for model in models
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_model_without_an_adapter_is_refused(gpt2: nn.Module) -> None:
    with pytest.raises(LayerError, match="has no LoRA adapter"):
        adapter_layers(gpt2)
