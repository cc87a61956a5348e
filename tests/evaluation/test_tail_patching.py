"""Tail-patch holds the logits of a chunk of tokens at a time, as gradients do."""

from functools import partial

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorif_assets.evaluation import tail_patching
from lorif_assets.mathematics.evaluation.tail_patch import patched
from lorif_assets.mathematics.gradients.collector import TokenBatch
from lorif_assets.mathematics.gradients.head import head_of, losses_with_graph
from lorif_assets.mathematics.gradients.token_losses import next_tokens, summed_cross_entropies
from tests.mathematics.largest_tensor import LargestTensor

VOCABULARY, LENGTH = 3_000, 40


def test_a_step_on_an_example_makes_no_tensor_of_all_its_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_patching, "losses_with_graph", partial(losses_with_graph, chunk_numbers=4 * VOCABULARY))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    head_of(model)
    ids = torch.randint(0, VOCABULARY, (1, LENGTH))
    labels = ids.clone()
    labels[:, :10] = -100
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), labels)
    with torch.no_grad():
        expected = summed_cross_entropies(model(input_ids=ids).logits, next_tokens(labels)).sum() / (LENGTH - 10)
    losses: list[float] = []

    def loss() -> torch.Tensor:
        found = tail_patching._mean_loss(model, batch)
        losses.append(float(found.detach()))
        return found

    with LargestTensor() as largest, patched(model, loss, 1e-3):
        pass
    assert losses == [pytest.approx(float(expected), rel=1e-5)]
    assert largest.numbers < LENGTH * VOCABULARY / 2
