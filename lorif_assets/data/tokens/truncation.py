"""What is kept of the tokens of an input that is too long, by each rule (docs/sources.md: inputs that are too long).

The tokens kept are consecutive but for special tokens in front (the begin-of-text token), which stay where a rule cuts
what follows them. The first token behind such a gap carries no loss: it would be predicted from what never stood before
it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from lorif_assets.config.recipe_fields import TruncationRule
from lorif_assets.data.content.labels import NO_LOSS, LabelledTokens, TokenIds

LENGTH_IN_WORDS = "recipe.max_length or the model's context"


def truncate(tokens: LabelledTokens, max_length: int, rule: TruncationRule, n_front: int) -> LabelledTokens:
    """Return at most `max_length` of the tokens; `n_front` of them are special tokens in front."""
    if len(tokens) <= max_length:
        return tokens
    n_front, start = _WINDOWS[rule](tokens.labels, max_length, min(n_front, max_length))
    end = start + max_length - n_front
    labels = np.concatenate([tokens.labels[:n_front], tokens.labels[start:end]])
    if 0 < n_front < start:
        labels[n_front : n_front + 1] = NO_LOSS
    where = f"after the first {n_front}" if 0 < n_front < start else "in front"
    n_behind = max(0, len(tokens) - end)
    cut = f"{start - n_front} tokens {where} and {n_behind} behind of {len(tokens)}: {at_most(max_length, rule)}"
    return replace(
        tokens,
        input_ids=np.concatenate([tokens.input_ids[:n_front], tokens.input_ids[start:end]]),
        labels=labels,
        cut=f"{tokens.cut}; of the rest, {cut}" if tokens.cut else cut,
    )


def at_most(max_length: int, rule: TruncationRule) -> str:
    """Say how many tokens are kept, and by which rule."""
    return f"at most {max_length} are kept ({LENGTH_IN_WORDS}), by the rule {rule}"


def count_front_tokens(input_ids: TokenIds, leading: TokenIds, bos: int | None) -> int:
    """Return how many of the ids [T] are special tokens in front of the text itself.

    They are those that the tokenizer puts in front of a text, `leading`, or the begin-of-text token `bos` alone, which
    chat templates write where the tokenizer does not.
    """
    if len(leading) and np.array_equal(input_ids[: len(leading)], leading):
        return len(leading)
    return int(bos is not None and len(input_ids) > 0 and int(input_ids[0]) == bos)


def _keep_start(labels: TokenIds, max_length: int, n_front: int) -> tuple[int, int]:
    del labels, max_length, n_front
    return 0, 0


def _keep_end(labels: TokenIds, max_length: int, n_front: int) -> tuple[int, int]:
    return n_front, len(labels) - (max_length - n_front)


def _keep_prompt_end_and_completion_start(labels: TokenIds, max_length: int, n_front: int) -> tuple[int, int]:
    """Let the completion be what lies between the first and the last token with loss, the prompt what precedes it.

    Each has a claim to half of the tokens, and to what the other leaves: the prompt loses its beginning, the completion
    its end.
    """
    first, end = _completion(labels)
    first = max(first, n_front)
    room = max_length - n_front
    return n_front, first - min(first - n_front, max(room - (end - first), room // 2))


def _keep_completion_first(labels: TokenIds, max_length: int, n_front: int) -> tuple[int, int]:
    """Keep all of the completion that fits, with what then fits of the tokens before it: special ones are cut like any."""
    del n_front
    first, end = _completion(labels)
    return 0, min(first, max(0, end - max_length))


def _completion(labels: TokenIds) -> tuple[int, int]:
    """The first position with loss, and the end of the last; (0, 0) if there is none."""
    targets = np.flatnonzero(labels != NO_LOSS)
    return (int(targets[0]), int(targets[-1]) + 1) if len(targets) else (0, 0)


# By rule, from labels [T], the length and the number of special tokens in front: how many of these stay as they are, and
# where what follows them begins.
_WINDOWS: Mapping[TruncationRule, Callable[[TokenIds, int, int], tuple[int, int]]] = {
    "keep_start": _keep_start,
    "keep_end": _keep_end,
    "drop_early_turns": _keep_prompt_end_and_completion_start,
    "completion_first": _keep_completion_first,
}
