"""Logits a chunk of tokens at a time: whatever the chunk, losses and gradients are those of all logits at once."""

import copy
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    BioGptConfig,
    BioGptForCausalLM,
    Cohere2Config,
    Cohere2ForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTJConfig,
    GPTJForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForCausalLM,
)

from lorif_assets.mathematics.gradients import collector as collecting
from lorif_assets.mathematics.gradients.collector import GradientCollector
from lorif_assets.mathematics.gradients.head import (
    CHUNK_NUMBERS,
    Head,
    chunk_numbers_on,
    head_chunks,
    head_of,
    losses_in_chunks,
    losses_with_graph,
)
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import LayerProjection, Projection, layer_projection
from lorif_assets.mathematics.gradients.token_losses import losses_of_targets, next_tokens, summed_cross_entropies
from tests.mathematics.gradients.families import tiny_model
from tests.mathematics.largest_tensor import LargestTensor
from tests.mathematics.references import autograd_gradients, padded_batch, relative_error, token_covariances, token_loss

VOCABULARY = 64
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 24,
    "initializer_range": 0.4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MODELS: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "Llama, untied": (lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)), "lm_head"),
    "Llama, tied": (lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)), "lm_head"),
    "Gemma-2, soft caps": (
        lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=1.5)),
        "lm_head",
    ),
    "Gemma-3, soft caps": (
        lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, final_logit_softcapping=1.5)),
        "lm_head",
    ),
    "Cohere, logit scale": (lambda: CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.3)), "lm_head"),
    "Cohere-2, logit scale": (lambda: Cohere2ForCausalLM(Cohere2Config(**SHAPE, logit_scale=0.3)), "lm_head"),
    "Granite, divided logits": (lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=3.0)), "lm_head"),
    "GPT-J, bias": (
        lambda: GPTJForCausalLM(
            GPTJConfig(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, rotary_dim=4, initializer_range=0.4)
        ),
        "lm_head",
    ),
    "OPT, a decoder within the base model": (
        lambda: OPTForCausalLM(
            OPTConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                ffn_dim=20,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=24,
                word_embed_proj_dim=16,
                init_std=0.4,
            )
        ),
        "lm_head",
    ),
    "RoBERTa, a head of two layers": (
        lambda: RobertaForCausalLM(
            RobertaConfig(**{**SHAPE, "max_position_embeddings": 40}, is_decoder=True, type_vocab_size=1)
        ),
        "lm_head.dense",
    ),
    "BioGPT": (
        lambda: BioGptForCausalLM(BioGptConfig(**{k: v for k, v in SHAPE.items() if k != "head_dim"})),
        "output_projection",
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def model_with_head(request) -> tuple[PreTrainedModel, str]:
    """In FP64, with the name of a linear layer behind the decoder."""
    make, head = MODELS[request.param]
    torch.manual_seed(0)
    return make().double().eval(), head


@pytest.fixture(scope="module")
def untied(gpt2) -> PreTrainedModel:
    """GPT-2 whose head has a weight of its own: autograd's gradient of a tied one has the embeddings' part too."""
    model = copy.deepcopy(gpt2).eval()
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def projections(model: nn.Module, layers: list[str], projection: Projection) -> list[LayerProjection]:
    return [layer_projection(layer, projection) for layer in select_layers(model, layers)]


def collect(model: nn.Module, projected: list[LayerProjection], batch, chunk_tokens: int):
    with GradientCollector(model, projected, chunk_tokens * VOCABULARY) as collector:
        return collector.collect(batch)


# --- The gradient is that of the whole ----------------------------------------------------------------------------


def test_a_model_is_cut_behind_its_decoder(model_with_head):
    model, head = model_with_head
    found = head_of(model)
    assert found is not None
    assert found.vocabulary == VOCABULARY
    assert found.holds(head)
    assert all(not found.holds(layer.name) for layer in select_layers(model) if not layer.name.startswith(head))


@pytest.mark.parametrize("projection", [Projection(factor=1, seed=7), Projection(factor=3, seed=7)], ids=str)
def test_losses_and_gradients_in_chunks_are_those_of_all_logits_at_once(
    model_with_head, projection, examples, monkeypatch
):
    model, head = model_with_head
    in_blocks = [layer.name for layer in select_layers(model) if layer.name != head]
    projected = projections(model, [*in_blocks, head], projection)
    batch = padded_batch(examples, 14, "right")
    found = collect(model, projected, batch, chunk_tokens=5)
    monkeypatch.setattr(collecting, "head_of", lambda _model: None)
    expected = collect(model, projected, batch, chunk_tokens=5)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-10, atol=0)
    assert head in found.gradients
    for layer, gradient in expected.gradients.items():
        # Norms and soft caps in FP32 are applied to other shapes.
        assert relative_error(found.gradients[layer], gradient) < 1e-6, layer


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_chunk_size_batch_or_side_of_padding_changes_losses_or_gradients(data, untied, examples):
    model = copy.deepcopy(untied).double()
    projected = projections(model, ["*"], Projection(factor=2, seed=7))
    chosen = data.draw(st.lists(st.sampled_from(examples), min_size=1, max_size=6))
    batch = padded_batch(chosen, 12 + data.draw(st.integers(0, 3)), data.draw(st.sampled_from(["left", "right"])))
    found = collect(model, projected, batch, data.draw(st.integers(1, 90)))
    losses = torch.stack([token_loss(model(torch.tensor([ids])).logits[0], labels) for ids, labels in chosen])
    torch.testing.assert_close(found.losses, losses.detach(), rtol=1e-12, atol=0)
    for layer, gradient in autograd_gradients(model, chosen, projected).items():
        assert relative_error(found.gradients[layer], gradient) < 1e-12, layer


@pytest.mark.parametrize("chunk_tokens", [1, 5, 100])
def test_slices_of_a_tracked_heads_gradients_come_once_and_in_order(untied, examples, chunk_tokens):
    projected = projections(untied, ["lm_head"], Projection(factor=2, seed=0))
    pieces: list[Tensor] = []

    def sink(_layer, rows, gradients):
        assert rows.start == sum(len(piece) for piece in pieces)
        assert len(gradients) == rows.stop - rows.start
        pieces.append(gradients)

    with GradientCollector(untied, projected, chunk_tokens * VOCABULARY) as collector:
        collector.stream(padded_batch(examples, 14, "right"), sink, 2 * projected[0].d1 * projected[0].d2)
    assert max(len(piece) for piece in pieces) <= 2
    assert relative_error(torch.cat(pieces), autograd_gradients(untied, examples, projected)["lm_head"]) < 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
def test_covariances_of_a_tracked_head_are_over_all_real_tokens_also_those_without_a_target(untied, examples, side):
    projected = projections(untied, ["lm_head"], Projection(factor=2, seed=0))
    batch = padded_batch(examples, 14, side)
    found: list[tuple[Tensor, Tensor]] = []

    def observer(_layer, calls):
        found.extend((x[batch.attention_mask], dy[batch.attention_mask]) for x, dy in calls)

    with GradientCollector(untied, projected, 5 * VOCABULARY) as collector:
        collector.observe(batch, observer)
    ((x, dy),) = found
    inputs, outputs, tokens = token_covariances(untied, examples, projected)["lm_head"]
    assert len(x) == tokens
    assert relative_error(x.T @ x, inputs) < 1e-5
    assert relative_error(dy.T @ dy, outputs) < 1e-5


def test_labels_of_the_model_are_drawn_in_chunks_too(gpt2, examples):
    batch = padded_batch(examples, 14, "right")
    with GradientCollector(gpt2, [], 5 * VOCABULARY) as collector:
        first, again = (collector.observe(batch, print, torch.Generator().manual_seed(3)) for _ in range(2))
        of_data = collector.observe(batch, print)
    assert torch.equal(first, again)
    assert not torch.allclose(first, of_data)


@pytest.mark.parametrize("chunk_tokens", [1, 5, 100])
def test_losses_without_gradients_are_the_same_in_chunks(gpt2, examples, chunk_tokens):
    model, batch = copy.deepcopy(gpt2).double().eval(), padded_batch(examples, 14, "right")
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
    found = losses_in_chunks(model, inputs, batch.labels, chunk_tokens * VOCABULARY)
    expected = [token_loss(model(torch.tensor([ids])).logits[0], labels) for ids, labels in examples]
    torch.testing.assert_close(found, torch.stack(expected).detach(), rtol=1e-12, atol=0)


def test_losses_with_their_graph_give_every_weight_the_gradient_of_all_logits_at_once(model_with_head, examples):
    model, _ = model_with_head
    batch = padded_batch(examples, 14, "right")
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long(), "use_cache": False}
    weights = [weight.requires_grad_(True) for weight in model.parameters()]
    expected = summed_cross_entropies(model(**inputs).logits, next_tokens(batch.labels))
    found = losses_with_graph(model, inputs, batch.labels, 5 * VOCABULARY)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    weighted = torch.arange(1.0, len(expected) + 1, dtype=expected.dtype)
    gradients, others = (
        torch.autograd.grad((losses * weighted).sum(), weights, allow_unused=True) for losses in (found, expected)
    )
    # The gradient of a key's bias is zero but for rounding.
    largest = max(float(other.norm()) for other in others if other is not None)
    for gradient, other in zip(gradients, others, strict=True):
        assert (gradient is None) == (other is None)
        assert other is None or float((gradient - other).norm()) < 1e-10 * largest


@pytest.mark.parametrize("with_graph", [True, False])
def test_neither_pass_makes_a_tensor_of_all_logits(with_graph):
    vocabulary, length = 3_000, 40
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "vocab_size": vocabulary, "max_position_embeddings": 64})).eval()
    head_of(model)
    ids = torch.randint(0, vocabulary, (3, length))
    losses_of = losses_with_graph if with_graph else losses_in_chunks
    with LargestTensor() as largest:
        losses = losses_of(model, {"input_ids": ids, "use_cache": False}, ids, 8 * vocabulary)
        if with_graph:
            torch.autograd.grad(losses.sum(), list(model.parameters()))
    assert 8 * vocabulary <= largest.numbers < ids.numel() * vocabulary / 4


# --- Only what is needed ------------------------------------------------------------------------------------------


def test_logits_are_made_of_no_token_without_a_target_and_of_few_tokens_at_a_time(gpt2, examples, monkeypatch):
    seen: list[Tensor] = []

    def watched(logits, targets):
        seen.append(targets)
        return losses_of_targets(logits, targets)

    monkeypatch.setattr(collecting, "losses_of_targets", watched)
    collect(gpt2, [], padded_batch(examples, 14, "right"), chunk_tokens=8)
    assert max(targets.numel() for targets in seen) <= 8
    n_targets = sum(label != -100 for _, labels in examples for label in labels[1:])
    assert sum(int((targets != -100).sum()) for targets in seen) == n_targets
    # What is left is padding within a chunk of examples of unequal length.
    assert sum(targets.numel() for targets in seen) < 1.25 * n_targets


@given(
    needed=st.integers(1, 5).flatmap(
        lambda t: st.lists(st.lists(st.booleans(), min_size=t, max_size=t), min_size=1, max_size=6)
    ),
    max_tokens=st.integers(1, 20),
)
def test_chunks_hold_every_needed_token_once_every_example_and_no_more_than_they_may(needed, max_tokens):
    mask = torch.tensor(needed)
    seen, last = torch.zeros_like(mask, dtype=torch.long), 0
    numbers = torch.arange(mask.numel()).view(mask.shape)
    for chunk in head_chunks(mask, max_tokens):
        assert chunk.positions.numel() <= max(max_tokens, 1)
        assert chunk.rows.start in (last - 1, last)
        last = chunk.rows.stop
        found = torch.full_like(seen, -1)
        chunk.put(found, chunk.of(numbers))
        at = found >= 0
        assert torch.equal(found[at], numbers[at])
        seen += at
    assert last == len(mask)
    assert torch.equal(seen.bool(), mask)
    assert seen.max() <= 1


@pytest.mark.parametrize(("gib", "expected"), [(75, 1 << 28), (9, 1 << 25), (1, CHUNK_NUMBERS)])
def test_logits_and_their_copies_take_a_small_share_of_a_gpus_free_memory(gib, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (gib << 30, 80 << 30))
    assert chunk_numbers_on(torch.device("cuda:0")) == expected
    assert chunk_numbers_on(torch.device("cpu")) == CHUNK_NUMBERS


# --- What cannot be cut -------------------------------------------------------------------------------------------


class MixedHead(nn.Module):
    """Its logits depend on the tokens before, behind the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model = Decoder()
        self.lm_head = nn.Linear(6, VOCABULARY)

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False):
        return SimpleNamespace(logits=self.lm_head(self.base_model(input_ids)["last_hidden_state"].cumsum(dim=1)))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.layers = nn.ModuleList([nn.Linear(6, 6)])

    def forward(self, input_ids: Tensor) -> "Output":
        return Output(last_hidden_state=self.layers[0](self.embedding(input_ids)))


class Output(dict[str, Tensor]):
    @property
    def last_hidden_state(self) -> Tensor:
        return self["last_hidden_state"]


def test_a_head_that_mixes_tokens_makes_all_logits_at_once(examples):
    torch.manual_seed(0)
    model = MixedHead().double()
    assert head_of(model) is None
    projected = projections(model, [], Projection(factor=1, seed=7))
    found = collect(model, projected, padded_batch(examples, 12, "right"), chunk_tokens=5).gradients
    for layer, gradient in autograd_gradients(model, examples, projected).items():
        assert relative_error(found[layer], gradient) < 1e-12


def test_looking_for_a_head_leaves_the_model_as_it_was(gpt2):
    model = copy.deepcopy(gpt2).eval()
    assert head_of(model) == Head("transformer", VOCABULARY)
    assert "forward" not in model.transformer.__dict__
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "llama4_text", "nemotron_h", "mamba", "bart", "ctrl"])
def test_models_of_other_kinds_are_cut_too(family):
    assert head_of(tiny_model(family)) is not None
