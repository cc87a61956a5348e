"""A tiny Llama in a GGUF file, in place of the real model."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorif_assets.demo.real.base_model import save_base
from lorif_assets.demo.real.corpus import build_chats
from tests.models.gguf_model import trained_tokenizer, write_gguf

_VOCABULARY = 600


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [message["content"] for chat in build_chats().chats for message in chat.messages]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
    )
    return write_gguf(model, trained_tokenizer(texts, _VOCABULARY), tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def base(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(gguf_file, tmp_path_factory.mktemp("real") / "base")
