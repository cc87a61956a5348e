"""Losses of the demo's language model and of the unigram model it must beat, over sequences of unequal length."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

_NO_TARGET = -100
_EVALUATION_BATCH_TOKENS = 4096


def unigram_loss(train: Sequence[Sequence[int]], held_out: Sequence[Sequence[int]], vocab_size: int) -> float:
    """Mean loss in nats of held-out tokens under the add-one smoothed frequencies of the training tokens.

    As for the model, the first token of a sequence is not predicted, and not counted.
    """
    counts = np.bincount(np.concatenate([tokens[1:] for tokens in train]), minlength=vocab_size) + 1
    log_probabilities = np.log(counts / counts.sum())
    return float(-log_probabilities[np.concatenate([tokens[1:] for tokens in held_out])].mean())


@torch.no_grad()
def mean_loss(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> float:
    """Mean loss in nats over all predicted tokens of the sequences."""
    rng = np.random.default_rng(0)
    batches = length_sorted_batches([len(tokens) for tokens in sequences], _EVALUATION_BATCH_TOKENS, rng)
    total = sum(summed_loss(model, [sequences[i] for i in batch]).item() for batch in batches)
    return total / sum(len(tokens) - 1 for tokens in sequences)


def summed_loss(model: PreTrainedModel, batch: Sequence[Sequence[int]]) -> Float[Tensor, ""]:
    """Cross-entropy in nats, summed over the tokens of the batch but the first of each sequence."""
    labels = _padded(batch, _NO_TARGET)
    # Padding stands on the right, where no causal position sees it: no attention mask is needed.
    logits = model(input_ids=_padded(batch, 0), use_cache=False).logits
    return cross_entropy(
        logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_NO_TARGET, reduction="sum"
    )


def length_sorted_batches(lengths: Sequence[int], batch_tokens: int, rng: np.random.Generator) -> list[list[int]]:
    """Batch sequences of similar length, in random order, so that little is padded.

    Args:
        lengths: tokens of each sequence.
        batch_tokens: tokens of a batch with its padding; a longer sequence is a batch of its own.
        rng: orders the batches, and the sequences of equal length among them.

    Returns:
        Positions of the sequences, each in one batch.
    """
    order = rng.permutation(len(lengths))
    batches: list[list[int]] = [[]]
    for i in order[np.argsort(np.asarray(lengths)[order], kind="stable")].tolist():
        if batches[-1] and (len(batches[-1]) + 1) * lengths[i] > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    return [batches[b] for b in rng.permutation(len(batches))]


def _padded(batch: Sequence[Sequence[int]], value: int) -> Int[Tensor, "N T"]:
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(tokens) for tokens in batch], batch_first=True, padding_value=value
    )
