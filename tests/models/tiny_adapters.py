"""A tiny Llama with random weights, and adapters on it as peft saves them."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

TARGETS = ["q_proj", "v_proj", "down_proj"]


def write_base(folder: Path, tokenizer: Any, *, tied: bool = False, seed: int = 0) -> Path:
    """Save a Llama of two layers and width 16, with a tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lora(**fields: Any) -> LoraConfig:
    return LoraConfig(**{"task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 6, "target_modules": TARGETS, **fields})


def write_adapter(folder: Path, base: Path, config: Any | None = None, *, seed: int = 0, vocabulary: int = 0) -> Path:
    """Train an adapter for three steps on random tokens, so that all that it trains has moved, and save it."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if vocabulary:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    torch.manual_seed(seed)
    adapted = get_peft_model(model, config or lora())
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    ids = torch.randint(0, model.config.vocab_size, (2, 12))
    for _ in range(3):
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(folder)
    return folder


def with_peft(base: Path, adapter: Path, vocabulary: int = 0) -> PeftModel:
    """The adapter on its base, as peft alone loads it."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if vocabulary:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    return PeftModel.from_pretrained(model, str(adapter)).eval()
