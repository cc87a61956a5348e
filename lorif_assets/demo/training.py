"""Training the demo's language model on a CPU, and its result."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from lorif_assets.demo.corpus import Corpus
from lorif_assets.demo.losses import length_sorted_batches, mean_loss, summed_loss, unigram_loss
from lorif_assets.demo.tokenizer import train_tokenizer
from lorif_assets.errors import CheckpointError

Architecture = Literal["gpt2", "llama"]


def has_bfloat16_products() -> bool:
    """Whether this machine's CPU multiplies matrices in BF16 natively."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@dataclass(frozen=True)
class DemoModelConfig:
    """Size of the demo's model and how it is trained."""

    architecture: Architecture = "gpt2"
    """Kind of transformer; a Llama has rotary positions, gated MLPs and grouped queries."""
    vocab_size: int = 4096
    """Tokens of the vocabulary, at most."""
    layers: int = 2
    """Transformer blocks."""
    width: int = 128
    """Width of the residual stream."""
    heads: int = 4
    """Attention heads per block."""
    context: int = 512
    """Tokens the model can read at once; longer passages lose their end."""
    initial_scale: float = 0.06
    """Standard deviation of the initial weights: GPT-2's 0.02 is for a larger width, and starts this one slowly."""
    checkpoint_steps: tuple[int, ...] = (600, 1200)
    """Optimiser steps after which a checkpoint is written, ascending; the last one ends the training."""
    batch_tokens: int = 1024
    """Tokens per optimiser step, padding included, at most (but at least one passage)."""
    learning_rate: float = 5e-3
    """Peak learning rate of AdamW."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises from 0; afterwards it falls to 0 along a cosine."""
    weight_decay: float = 0.1
    """Weight decay of matrices and embeddings; biases and norms have none."""
    gradient_norm: float = 1.0
    """Norm to which larger gradients are clipped."""
    seed: int = 0
    """Seed of the initial weights and of the order of the batches."""
    bfloat16: bool = field(default_factory=has_bfloat16_products)
    """Whether products are in BF16 (weights stay in FP32): half the time of a step where the CPU has such instructions."""


@dataclass(frozen=True)
class CheckpointLosses:
    """A checkpoint and its mean loss per predicted token, in nats."""

    path: Path
    step: int
    train_loss: float
    """On a sample of the training passages, about as many as are held out."""
    held_out_loss: float


@dataclass(frozen=True)
class TrainingSummary:
    """What a training run produced and cost."""

    checkpoints: tuple[CheckpointLosses, ...]
    unigram_loss: float
    """Held-out loss per predicted token, in nats, of a model that knows only how often each token occurs."""
    parameters: int
    vocab_size: int
    corpus_tokens: int
    """Tokens of the training passages."""
    tokens_seen: int
    """Tokens over all optimiser steps, padding not counted."""
    seconds: float

    @property
    def steps(self) -> int:
        """Optimiser steps taken."""
        return self.checkpoints[-1].step


def train(corpus: Corpus, directory: Path, config: DemoModelConfig | None = None) -> TrainingSummary:
    """Train a tokenizer and a model on the corpus and write checkpoints `<directory>/step-<000000>`.

    A training sequence is one passage as the tokenizer gives it, so that what is attributed is what was trained on. A
    checkpoint directory appears whole: it is written under another name first. On one machine, the same thread count and
    seed give the same weights.

    Raises:
        CheckpointError: a checkpoint that is to be written exists.
    """
    config = config or DemoModelConfig()
    for step in config.checkpoint_steps:
        if (path := checkpoint_path(directory, step)).exists():
            raise CheckpointError(f"{path} exists already: remove {directory} to train the demo's model again")
    started = time.monotonic()
    tokenizer = train_tokenizer((passage.text for passage in corpus.train), config.vocab_size, config.context)
    train_tokens = tokenize([passage.text for passage in corpus.train], tokenizer)
    held_out_tokens = tokenize([passage.text for passage in corpus.held_out], tokenizer)
    sample = train_tokens[:: max(1, len(train_tokens) // len(held_out_tokens))]

    model = new_model(tokenizer, config)
    checkpoints: list[CheckpointLosses] = []
    tokens_seen = 0
    for step, batch_tokens in optimise(model, train_tokens, config):
        tokens_seen += batch_tokens
        if step in config.checkpoint_steps:
            path = save(model, tokenizer, checkpoint_path(directory, step))
            losses = mean_loss(model, sample), mean_loss(model, held_out_tokens)
            checkpoints.append(CheckpointLosses(path, step, *losses))
    return TrainingSummary(
        checkpoints=tuple(checkpoints),
        unigram_loss=unigram_loss(train_tokens, held_out_tokens, len(tokenizer)),
        parameters=model.num_parameters(),
        vocab_size=len(tokenizer),
        corpus_tokens=sum(map(len, train_tokens)),
        tokens_seen=tokens_seen,
        seconds=time.monotonic() - started,
    )


def checkpoint_path(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return directory / f"step-{step:06d}"


def learning_rate_factor(step: int, steps: int, warmup_share: float) -> float:
    """Share of the peak learning rate at a step (from 0): a linear rise, then half a cosine down to 0."""
    warmup = max(1, round(steps * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return token ids, cut to what the model can read."""
    encoded: list[list[int]] = tokenizer(list(texts), truncation=True, return_attention_mask=False)["input_ids"]
    return encoded


def new_model(tokenizer: PreTrainedTokenizerBase, config: DemoModelConfig) -> PreTrainedModel:
    """Return an untrained model; its weights depend on the configuration's seed alone."""
    shape = _gpt2(config) if config.architecture == "gpt2" else _llama(config)
    shape.update(
        {
            "vocab_size": len(tokenizer),
            "initializer_range": config.initial_scale,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(shape)
        return model


def _gpt2(config: DemoModelConfig) -> GPT2Config:
    return GPT2Config(
        n_positions=config.context,
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        # GPT-2's own form of GELU as one kernel: on a CPU a step takes two thirds of the time.
        activation_function="gelu_pytorch_tanh",
        # Every token is seen few times: the model underfits, and dropout would only slow it.
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def _llama(config: DemoModelConfig) -> LlamaConfig:
    return LlamaConfig(
        max_position_embeddings=config.context,
        hidden_size=config.width,
        # Gated: three matrices of this width have about the numbers of GPT-2's two.
        intermediate_size=config.width * 8 // 3,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads // 2,
        tie_word_embeddings=True,
    )


def optimise(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], config: DemoModelConfig
) -> Iterator[tuple[int, int]]:
    """Train, and yield the number and the predicted tokens of each step once it is done."""
    steps = config.checkpoint_steps[-1]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, config.warmup_share)
    )
    # disable=None: no bar where standard error is no terminal.
    with tqdm(total=steps, desc="train the model", unit="step", disable=None) as bar:
        started, seen = time.monotonic(), 0
        for step, batch in zip(range(1, steps + 1), _endless_batches(sequences, config), strict=False):
            n_targets = sum(len(tokens) - 1 for tokens in batch)
            with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
                loss = summed_loss(model, batch) / n_targets
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            seen += n_targets
            bar.set_postfix({"loss": f"{loss.item():.2f}", "tokens/s": f"{seen / (time.monotonic() - started):,.0f}"})
            bar.update()
            yield step, n_targets


def _endless_batches(sequences: Sequence[Sequence[int]], config: DemoModelConfig) -> Iterator[list[Sequence[int]]]:
    rng = np.random.default_rng(config.seed)
    lengths = [len(tokens) for tokens in sequences]
    while True:
        for batch in length_sorted_batches(lengths, config.batch_tokens, rng):
            yield [sequences[i] for i in batch]


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> Path:
    """Write a checkpoint, which appears whole, and return where."""
    logging.disable_progress_bar()
    unfinished = path.with_name(f".{path.name}")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    return unfinished.rename(path)
