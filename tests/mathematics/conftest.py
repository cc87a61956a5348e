"""Tiny models with random weights, large enough that attention is not uniform, and examples for them."""

from collections.abc import Iterator

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL
from tests.mathematics.references import Example

VOCABULARY = 64


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The matrices are so small that handing them to threads takes longer than the products."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=24,
            n_embd=12,
            n_inner=20,
            n_layer=2,
            n_head=2,
            initializer_range=0.4,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


@pytest.fixture(scope="session")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=24,
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.4,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


@pytest.fixture(scope="session")
def bloom() -> BloomForCausalLM:
    """Takes no position ids: it counts positions from the attention mask."""
    torch.manual_seed(0)
    return BloomForCausalLM(
        BloomConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            n_layer=2,
            n_head=4,
            initializer_range=0.4,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Unequal lengths; of every other example the first three tokens are a prompt that carries no loss."""
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in (9, 4, 12, 6, 7, 12)]
    return [(row, [IGNORED_LABEL] * 3 + row[3:] if i % 2 else row) for i, row in enumerate(ids)]
