"""A small text encoder for the demo, so that Influcoder needs no download: a BERT with the demo's own tokenizer.

It is pre-trained for half a minute (150 steps) by predicting masked tokens of the training passages.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from lorif_assets.attribution.batching import pad_right
from lorif_assets.attribution.gradients import TokenBatch
from lorif_assets.attribution.token_losses import IGNORED_LABEL

MASK = "<|mask|>"


@dataclass(frozen=True)
class DemoEncoderConfig:
    """Size of the demo's encoder and how long it is pre-trained."""

    layers: int = 2
    """Transformer blocks."""
    width: int = 128
    """Width of the residual stream, and of an embedding."""
    heads: int = 4
    """Attention heads per block."""
    context: int = 256
    """Tokens the encoder reads at most."""
    steps: int = 150
    """Optimiser steps of pre-training; 0: none."""
    batch: int = 16
    """Passages of one step."""
    masked_share: float = 0.15
    """Share of the tokens that are masked and to be predicted."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW; it falls in a line."""
    seed: int = 0
    """Seed of the weights, the batches and the masks."""


def make_encoder(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, directory: Path, config: DemoEncoderConfig | None = None
) -> float:
    """Pre-train an encoder and write it where sentence-transformers can load it; return the seconds that it took.

    Args:
        texts: to pre-train on.
        tokenizer: with a padding token; a mask token is added to it.
        directory: where model and tokenizer go.
        config: size and length of training.
    """
    config = config or DemoEncoderConfig()
    started = time.monotonic()
    tokenizer.add_special_tokens({"mask_token": MASK})
    tokenizer.model_max_length = config.context
    encoded = tokenizer(list(texts), truncation=True, max_length=config.context, return_attention_mask=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                max_position_embeddings=config.context,
                # It underfits within the steps it has; dropout would only slow it.
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                initializer_range=0.06,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        _pretrain(model, encoded["input_ids"], int(tokenizer.mask_token_id), config)
        # With the pooler that loaders of BERT look for, though nothing reads it.
        encoder = BertModel(model.config)
    encoder.load_state_dict(model.bert.state_dict(), strict=False)
    encoder.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return time.monotonic() - started


def _pretrain(
    model: BertForMaskedLM, sequences: Sequence[Sequence[int]], mask_id: int, config: DemoEncoderConfig
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 40) * max(0.0, 1 - step / max(1, config.steps))
    )
    model.train()
    batches = _masked_batches(sequences, mask_id, config)
    for _, batch in tqdm(
        zip(range(config.steps), batches, strict=False),
        total=config.steps,
        desc="pre-train the encoder",
        unit="step",
        disable=None,
    ):
        states = model.bert(batch.input_ids, attention_mask=batch.attention_mask.long()).last_hidden_state
        hidden = batch.labels != IGNORED_LABEL
        # The vocabulary's logits only where they are asked for: they are most of the work.
        loss = torch.nn.functional.cross_entropy(model.cls(states[hidden]), batch.labels[hidden])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def _masked_batches(
    sequences: Sequence[Sequence[int]], mask_id: int, config: DemoEncoderConfig
) -> Iterator[TokenBatch]:
    rng = np.random.default_rng(config.seed)
    while True:
        chosen = rng.choice(len(sequences), min(config.batch, len(sequences)), replace=False)
        ids, labels = [], []
        for index in chosen:
            tokens = np.asarray(sequences[index], np.int64)
            masked = rng.random(len(tokens)) < config.masked_share
            masked[rng.integers(len(tokens))] = True
            ids.append(np.where(masked, mask_id, tokens))
            labels.append(np.where(masked, tokens, IGNORED_LABEL))
        yield pad_right(ids, labels)
