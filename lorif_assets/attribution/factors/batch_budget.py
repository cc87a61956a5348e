"""Batches whose token budget is halved when memory runs out: too large a setting costs time, but not the run."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lorif_assets.errors import LorifError

if TYPE_CHECKING:
    from lorif_assets.attribution.checkpoints.model import AttributedModel
    from lorif_assets.data.tokens.tokenization import TokenizedExample

Found = TypeVar("Found")


def compute_batches(
    attributed: "AttributedModel",
    examples: "Sequence[TokenizedExample]",
    tokens: int,
    compute: Callable[[list[int]], None],
    log: logging.Logger,
) -> int:
    """Compute the examples batch by batch, and return the token budget that every batch fitted in.

    Args:
        attributed: the checkpoint.
        examples: of the shard.
        tokens: the budget to start with, padding included.
        compute: takes positions among the examples; called again for the examples of a batch that did not fit, whatever
            it had done by then.
        log: gets a warning for every smaller budget.

    Raises:
        LorifError: a single example does not fit.
    """
    batches = attributed.batches(examples, tokens)
    while batches:
        positions = batches.pop(0)
        if _fits(partial(compute, positions)):
            continue
        tokens = _fewer_tokens(attributed, examples, positions, tokens, log)
        remaining = [*positions, *(i for batch in batches for i in batch)]
        batches = [
            [remaining[i] for i in batch] for batch in attributed.batches([examples[i] for i in remaining], tokens)
        ]
    return tokens


def computed_at_once(
    attributed: "AttributedModel",
    examples: "Sequence[TokenizedExample]",
    tokens: int,
    compute: Callable[[int], Found],
    log: logging.Logger,
) -> Found:
    """Return what is computed of all examples together, from the start again with smaller batches where one does not fit.

    The largest batch comes first, so that little is computed twice.

    Args:
        attributed: the checkpoint.
        examples: that are computed.
        tokens: the budget to start with, padding included.
        compute: takes a budget.
        log: gets a warning for every smaller budget.

    Raises:
        LorifError: a single example does not fit.
    """
    found: list[Found] = []

    def attempt() -> None:
        found.append(compute(tokens))

    while not _fits(attempt):
        tokens = _fewer_tokens(attributed, examples, attributed.batches(examples, tokens)[0], tokens, log)
    return found[0]


def _fewer_tokens(
    attributed: "AttributedModel",
    examples: "Sequence[TokenizedExample]",
    positions: Sequence[int],
    tokens: int,
    log: logging.Logger,
) -> int:
    """Return a smaller budget than one of which a batch did not fit, half of what the batch had, and say so."""
    # The batch may be far smaller than the budget.
    padded = len(positions) * max(len(examples[i].input_ids) for i in positions)
    if len(positions) == 1:
        raise LorifError(
            f"the memory of {attributed.devices} does not hold the gradients of even the one example "
            f"{examples[positions[0]].example_id!r} of {padded} tokens; lower `recipe.max_length` or "
            '`batch.gradient_mib`, set `recipe.model_dtype = "bfloat16"`, or raise `devices.per_checkpoint`'
        )
    fewer = min(tokens, padded) // 2
    log.warning(
        f"{attributed.record.name}: a batch of {padded:,} tokens does not fit in the memory of {attributed.devices}; "
        f"going on with {fewer:,}. Set `batch.tokens` to this number to start with it"
    )
    return fewer


def _fits(compute: Callable[[], None]) -> bool:
    """Compute, and return whether memory sufficed.

    On return the error is gone, and with its traceback the tensors: their memory is free for the next attempt.
    """
    try:
        compute()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an accelerator or a CPU's allocator ran out of memory; the latter is known only by its message."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
