"""What is refused before gradients are taken for what they are not."""

import pytest
import torch
from torch import nn
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from lorif_assets.mathematics.gradients.layers import LayerError
from lorif_assets.mathematics.gradients.soundness import refuse_unattributable, refuse_unsound, sees_later_tokens
from tests.mathematics.gradients.families import tiny_model


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "big_bird", "xlm-roberta"])
def test_an_encoder_is_refused_and_the_same_architecture_as_a_decoder_is_not(family):
    with pytest.raises(LayerError, match=r"is no causal language model: what it predicts .* lacks `is_decoder: true`"):
        refuse_unsound(tiny_model(family, is_decoder=False))
    refuse_unsound(tiny_model(family))


@pytest.mark.parametrize(
    "error", [AssertionError("train it first"), NotImplementedError(), RuntimeError("sizes differ")]
)
def test_a_model_that_fails_on_text_is_refused_by_what_it_says(gpt2, monkeypatch, error):
    def failing(*_arguments, **_named):
        raise error

    monkeypatch.setattr(gpt2, "forward", failing)
    said = str(error) or type(error).__name__
    with pytest.raises(LayerError, match=f"a GPT2LMHeadModel cannot be run and differentiated on text alone: {said}"):
        refuse_unattributable(gpt2)


def test_a_device_without_memory_is_no_fault_of_the_model(gpt2, monkeypatch):
    def failing(*_arguments, **_named):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpt2, "forward", failing)
    with pytest.raises(torch.OutOfMemoryError):
        refuse_unattributable(gpt2)


def test_a_model_in_bf16_is_judged_as_one_in_fp32():
    assert not sees_later_tokens(tiny_model("mixtral").bfloat16())
    assert sees_later_tokens(tiny_model("bert", is_decoder=False).bfloat16())


def test_the_check_leaves_the_model_as_it_was(gpt2):
    gpt2.train()
    before = [parameter.requires_grad for parameter in gpt2.parameters()]
    refuse_unsound(gpt2)
    assert gpt2.training
    assert [parameter.requires_grad for parameter in gpt2.parameters()] == before
    assert not any(module._forward_hooks for module in gpt2.modules())
    gpt2.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_that_compute_something_else_than_is_known_are_refused(dtype):
    class OtherExperts(MixtralExperts):
        def forward(self, hidden_states, top_k_index, top_k_weights):
            return 2 * super().forward(hidden_states, top_k_index, top_k_weights)

    model = tiny_model("mixtral").to(dtype)
    refuse_unsound(model)
    model.model.layers[2].mlp.experts.__class__ = OtherExperts
    with pytest.raises(
        LayerError, match=r"experts of model\.layers\.2\.mlp\.experts, a OtherExperts, compute something else"
    ):
        refuse_unsound(model)


def test_a_layer_that_looks_ahead_in_the_last_block_alone_is_found(gpt2):
    class Mean(nn.Module):
        def forward(self, hidden):
            return hidden + 1e-3 * hidden.mean(dim=1, keepdim=True)

    before = gpt2.transformer.ln_f
    gpt2.transformer.ln_f = nn.Sequential(before, Mean())
    assert sees_later_tokens(gpt2)
    gpt2.transformer.ln_f = before
    assert not sees_later_tokens(gpt2)
