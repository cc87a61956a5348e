"""What tokenizers and trainers write beside token ids: padding, which tokens carry loss, several sequences in one row."""

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.rows.rejected import UnusableRowError

SEQUENCE_LENGTHS = ("seq_lengths",)
SEQUENCE_ENDS = ("cu_seqlens", "cu_seq_lens_q")
"""Where sequences of a row begin and end, from 0 to its length."""
SEQUENCE_NUMBERS = ("seq_idx", "sequence_id", "segment_ids", "document_ids")
"""Of each token, the number of its sequence."""
_PADDING_NUMBERS = (0, -1)
_APART = "each of which the model saw alone: give the source one row for each sequence"


def refuse_packed(column: str, value: Any, ids: Any) -> None:
    """Refuse a row of several sequences, by its positions, which begin anew with each, their lengths, ends or numbers.

    Raises:
        UnusableRowError: it is one.
    """
    if not isinstance(value, list) or not all(isinstance(entry, int | float) for entry in value):
        return
    if column in SEQUENCE_NUMBERS and (not isinstance(ids, list) or len(ids) != len(value)):
        # Of the row's documents, not of each token.
        return
    if (n_sequences := _n_sequences(column, value)) > 1:
        raise UnusableRowError(
            f"{column} shows {n_sequences} sequences in the row, {_APART}. Where it saw them as one, leave the column out by "
            "columns.metadata"
        )


def _n_sequences(column: str, value: Sequence[int]) -> int:
    if column in SEQUENCE_LENGTHS:
        return len(value)
    if column in SEQUENCE_ENDS:
        return sum(first < end for first, end in pairwise(value))
    if column in SEQUENCE_NUMBERS:
        numbers = [number for number, _ in groupby(value)]
        # Behind the last sequence, padding has a number of its own.
        return len(numbers) - (len(numbers) > 1 and numbers[-1] in _PADDING_NUMBERS and numbers[-1] < numbers[0])
    return sum(pair == (0, 1) for pair in pairwise(value))


def with_loss_mask(raw: Mapping[str, Any], column: str, mask: Any) -> dict[str, Any]:
    """Token ids with labels that carry loss only where a mask says so; a row without a mask is left as it is.

    Raises:
        UnusableRowError: the mask is no list of 0 and 1, one for each token.
    """
    ids = raw["input_ids"]
    if mask is None or not isinstance(ids, list):
        return dict(raw)
    if not isinstance(mask, list) or any(entry not in (0, 1) for entry in mask):
        raise UnusableRowError(f"{column} is no list of 0 and 1, which says for each token whether it carries loss")
    labels = raw.get("labels", ids)
    if len(mask) != len(ids):
        raise UnusableRowError(f"{column} has {len(mask)} entries and input_ids {len(ids)}")
    if not isinstance(labels, list) or len(labels) != len(ids):
        # What is wrong with them is said where they are read.
        return dict(raw)
    return {**raw, "labels": [label if kept else NO_LOSS for label, kept in zip(labels, mask, strict=True)]}


def without_padding(raw: Mapping[str, Any], mask: Sequence[Any]) -> dict[str, Any]:
    """Token ids and labels up to the last token that the attention mask shows.

    Raises:
        UnusableRowError: it hides tokens elsewhere, is of another length, or numbers several sequences.
    """
    numbers = {entry for entry in mask if isinstance(entry, int | float)} - {0}
    if len(numbers) > 1:
        raise UnusableRowError(f"attention_mask numbers {len(numbers)} sequences in the row, {_APART}")
    if all(mask):
        return dict(raw)
    shown = max((k + 1 for k, shows in enumerate(mask) if shows), default=0)
    if not all(mask[:shown]):
        raise UnusableRowError("attention_mask hides tokens: store the row without padding")
    for role, value in raw.items():
        if isinstance(value, list) and len(value) != len(mask):
            raise UnusableRowError(f"attention_mask has {len(mask)} entries and {role} {len(value)}")
    return {role: value[:shown] if isinstance(value, list) else value for role, value in raw.items()}
