"""What tokenizers and trainers write beside token ids: padding, which tokens carry loss, several sequences in one row."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.rows.unusable import UnusableRowError

POSITIONS = "position_ids"
SEQUENCE_LENGTHS = ("seq_lengths",)
SEQUENCE_ENDS = ("cu_seqlens", "cu_seq_lens_q")
"""Where sequences of a row begin and end, from 0 to its length."""
SEQUENCE_NUMBERS = ("seq_idx", "sequence_id", "segment_ids", "document_ids")
"""Of each token, the number of its sequence."""
ATTENTION_MASK = "attention_mask"
_PADDING_NUMBERS = (0, -1)
_WAY_OUT = "Correct it or, where the model saw the row as one sequence, leave it out by columns.metadata"


def packed_sequences(marks: Mapping[str, Any], n_tokens: int) -> tuple[range, ...]:
    """Return which tokens of a row are those of each sequence that was packed in it; none where the marks show only one.

    Padding is in none of them, nor is a sequence of a single token, which nothing predicts.

    Args:
        marks: what the row has in the columns that show it: positions, lengths, ends, numbers, an attention mask.
        n_tokens: of the row.

    Raises:
        UnusableRowError: the marks contradict one another, or the row's tokens; or no sequence has more than one token.
    """
    read = {
        column: numbers
        for column, value in marks.items()
        if (numbers := _whole_numbers(value)) and not (column in SEQUENCE_NUMBERS and len(numbers) != n_tokens)
    }
    several = [column for column, numbers in read.items() if _n_sequences(column, numbers) > 1]
    if not several:
        return ()
    for column in read.keys() & {POSITIONS, ATTENTION_MASK}:
        if len(read[column]) != n_tokens:
            raise UnusableRowError(f"{column} has {len(read[column])} entries and input_ids {n_tokens}")
    n_shown = _n_shown(read.get(ATTENTION_MASK, [1] * n_tokens))
    if ATTENTION_MASK not in several:
        read.pop(ATTENTION_MASK, None)
    found = {column: tuple(_sequences(column, numbers, n_shown)) for column, numbers in read.items()}
    (first, sequences), *others = found.items()
    for column, other in others:
        if other != sequences:
            raise UnusableRowError(
                f"{first} and {column} contradict one another: by the one the row holds {_counted(sequences)}, by the other "
                f"{_counted(other)}. Correct the one that is wrong"
            )
    if not sequences:
        raise UnusableRowError(f"{first} shows sequences of one token alone, which nothing predicts")
    return sequences


def refuse_packed(marks: Mapping[str, Any], n_tokens: int) -> None:
    """Refuse a row of several sequences where it is to be one.

    Raises:
        UnusableRowError: it is one.
    """
    if sequences := packed_sequences(marks, n_tokens):
        shown = " and ".join(column for column, value in marks.items() if value is not None)
        raise UnusableRowError(f"the row holds {_counted(sequences)} by its {shown}: give each a row of its own")


def _whole_numbers(value: Any) -> list[int] | None:
    if not isinstance(value, list) or not all(
        isinstance(entry, int) or (isinstance(entry, float) and entry.is_integer()) for entry in value
    ):
        return None
    return list(map(int, value))


def _n_sequences(column: str, numbers: Sequence[int]) -> int:
    if column in SEQUENCE_LENGTHS:
        return len(numbers)
    if column in SEQUENCE_ENDS:
        return sum(first < end for first, end in pairwise(numbers))
    if column == POSITIONS:
        # Positions that only rise are those of one sequence, also where some are left out.
        is_one = all(first < second for first, second in pairwise(numbers))
        return 1 if is_one else sum(len(run) > 1 for run in _runs(numbers))
    if column == ATTENTION_MASK:
        return len({*numbers} - {0})
    groups = [number for number, _ in groupby(numbers)]
    # Behind the last sequence, padding has a number of its own.
    return len(groups) - (len(groups) > 1 and _is_padding(groups[-1], groups[0]))


def _n_shown(mask: Sequence[int]) -> int:
    """Return the number of tokens without the padding behind them."""
    n_shown = max((k + 1 for k, shows in enumerate(mask) if shows), default=0)
    if not all(mask[:n_shown]) and len({*mask} - {0}) == 1:
        raise UnusableRowError("attention_mask hides tokens: store the row without padding")
    return n_shown


def _sequences(column: str, numbers: Sequence[int], n_shown: int) -> Iterable[range]:
    """Yield the sequences of more than one token that a column shows among the tokens that are no padding."""
    if column in (*SEQUENCE_LENGTHS, *SEQUENCE_ENDS):
        ends = [0, *accumulate(numbers)] if column in SEQUENCE_LENGTHS else list(numbers)
        if ends != sorted(ends) or ends[0] != 0 or ends[-1] != n_shown:
            raise UnusableRowError(
                f"{column} ends no sequences of the {n_shown} tokens that the row has without padding. {_WAY_OUT}"
            )
        runs = [range(begin, end) for begin, end in pairwise(ends)]
    elif column == POSITIONS:
        runs = [run for run in _runs(numbers[:n_shown]) if len(run) > 1]
        for run in runs:
            if numbers[run.start] != 0:
                raise UnusableRowError(
                    f"position_ids are {numbers[run.start]} where a sequence begins, at token {run.start}, and not 0. "
                    f"{_WAY_OUT}"
                )
    else:
        runs = list(_numbered(column, numbers, n_shown))
    return (run for run in runs if len(run) > 1)


def _runs(positions: Sequence[int]) -> list[range]:
    """Return the stretches in which each position is the next of the one before."""
    starts = [k for k in range(len(positions)) if k == 0 or positions[k] != positions[k - 1] + 1]
    return [range(begin, end) for begin, end in pairwise([*starts, len(positions)])]


def _numbered(column: str, numbers: Sequence[int], n_shown: int) -> Iterable[range]:
    """Yield the stretches of one number that are no padding, whatever number padding has behind the tokens that are shown."""
    seen: set[int] = set()
    end = 0
    for number, group in groupby(numbers[:n_shown]):
        begin, end = end, end + len(list(group))
        is_padding = (
            number == 0 if column == ATTENTION_MASK else end == len(numbers) and _is_padding(number, numbers[0])
        )
        if is_padding:
            continue
        if number in seen:
            raise UnusableRowError(f"{column} has the number {number} for tokens that do not lie together")
        seen.add(number)
        yield range(begin, end)


def _is_padding(last: int, first: int) -> bool:
    return last in _PADDING_NUMBERS and last < first


def _counted(sequences: Sequence[range]) -> str:
    return f"{len(sequences)} sequence{'s' * (len(sequences) != 1)} of {sum(map(len, sequences))} tokens"


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
        UnusableRowError: it hides tokens elsewhere, or is of another length.
    """
    if all(mask):
        return dict(raw)
    shown = max((k + 1 for k, shows in enumerate(mask) if shows), default=0)
    if not all(mask[:shown]):
        raise UnusableRowError("attention_mask hides tokens: store the row without padding")
    for role, value in raw.items():
        if isinstance(value, list) and len(value) != len(mask):
            raise UnusableRowError(f"attention_mask has {len(mask)} entries and {role} {len(value)}")
    return {role: value[:shown] if isinstance(value, list) else value for role, value in raw.items()}
