"""Rows of token ids that hold several sequences, as trainers packed them or are to cut them: each becomes a row of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from lorif_assets.config.sources import Columns
from lorif_assets.data.content.columns import ColumnRoles, ContentFormat, column_roles
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.content.token_masks import packed_sequences, without_padding
from lorif_assets.data.formats.reader import MalformedRow, RawShard, RowPart
from lorif_assets.data.rows.rejected import excerpt
from lorif_assets.data.rows.row_ids import text_of_id
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.errors import SourceError


def unpacked(raw: RawShard, columns: Columns, most_tokens: int | None = None) -> RawShard:
    """Return a shard in which each sequence that is packed in a row is a row; a shard without any is returned as it is.

    The sequences of a row have its other values, and its id with their number behind it (`ID#1`, `ID#2`). Columns that show
    where sequences end are left out, and so is padding. A row whose marks contradict one another is malformed.

    Args:
        raw: the shard.
        columns: which of its columns hold what.
        most_tokens: of a sequence; longer ones are cut into several. None: none are.

    Raises:
        SourceError: sequences are to be cut, and the rows hold no token ids.
    """
    if columns.id is None:
        columns = columns.model_copy(update={"id": raw.id_column})
    try:
        roles = column_roles(columns, raw.columns, raw.origin)
    except SourceError:
        # Said where the content is read.
        return raw
    if roles.format is not ContentFormat.INPUT_IDS:
        if most_tokens is None or not raw.rows:
            return raw
        raise SourceError(
            f"{raw.origin}: `tokens_per_example` is for rows of token ids, and these hold {roles.format}. Leave it out, or "
            "name a source with the tokens as the training had them"
        )
    if not roles.packing_marks and most_tokens is None:
        return raw
    found: dict[int, Mapping[int, Mapping[str, Any]] | MalformedRow] = {line.row: line for line in raw.malformed}
    for row, values in raw.rows:
        try:
            found[row] = _sequences(values, roles, most_tokens)
        except UnusableRowError as reason:
            found[row] = MalformedRow(row, str(reason), excerpt(values))
    if all(found[row] == {} for row, _ in raw.rows):
        return raw
    whole = dict(raw.rows)
    parts: list[RowPart] = []
    rows: list[tuple[int, Mapping[str, Any]]] = []
    malformed: list[MalformedRow] = []
    for row in sorted(found):
        one = found[row]
        if isinstance(one, MalformedRow):
            malformed.append(replace(one, row=len(parts)))
            parts.append(RowPart(row))
            continue
        for number, values in one.items() or [(None, whole[row])]:
            rows.append((len(parts), values))
            parts.append(RowPart(row, number))
    # What is left of them would be metadata of every sequence.
    kept = tuple(name for name in raw.columns if name not in roles.packing)
    return replace(raw, columns=kept, rows=tuple(rows), malformed=tuple(malformed), parts=tuple(parts))


def columns_by_token(columns: Columns, raw: RawShard) -> tuple[str, ...]:
    """Return the columns of a shard that have an entry for each token."""
    return tuple(name for name in column_roles(columns, raw.columns, raw.origin).by_token if name in raw.columns)


def _sequences(values: Mapping[str, Any], roles: ColumnRoles, most_tokens: int | None) -> dict[int, Mapping[str, Any]]:
    """Return the sequences of a row as rows, by their numbers; none where it holds one alone.

    Of one that is cut, parts without loss are left out, unless no part has any.
    """
    ids = values.get(roles.content["input_ids"])
    if not isinstance(ids, list):
        return {}
    sequences = packed_sequences({column: values.get(column) for column in roles.packing_marks}, len(ids))
    cut: list[Sequence[range]] = [[tokens] for tokens in sequences]
    if most_tokens is not None:
        whole = sequences or _shown(values, roles, len(ids))
        if sequences or any(len(tokens) > most_tokens for tokens in whole):
            cut = [_pieces(tokens, most_tokens) for tokens in whole]
    if not cut:
        return {}
    by_token = {column: values[column] for column in roles.by_token if isinstance(values.get(column), list)}
    for column, entries in by_token.items():
        if len(entries) != len(ids):
            raise UnusableRowError(f"{column} has {len(entries)} entries and input_ids {len(ids)}")
    others = {column: value for column, value in values.items() if column not in (*by_token, *roles.packing)}
    numbers = count(1)
    rows: dict[int, Mapping[str, Any]] = {}
    for pieces in cut:
        own = {
            number: {column: entries[tokens.start : tokens.stop] for column, entries in by_token.items()}
            for tokens, number in zip(pieces, numbers, strict=False)
        }
        with_loss = {number: entries for number, entries in own.items() if _carries_loss(entries, roles)}
        for number, entries in (with_loss or own).items():
            if roles.attention_mask in entries:
                # Some number the sequences.
                entries[roles.attention_mask] = [shows and type(shows)(1) for shows in entries[roles.attention_mask]]
            if roles.id is not None:
                entries[roles.id] = f"{text_of_id(values.get(roles.id), roles.id)}#{number}"
            rows[number] = {
                column: entries.get(column, others.get(column))
                for column in values
                if column in entries or column in others
            }
    return rows


def _carries_loss(entries: Mapping[str, Sequence[Any]], roles: ColumnRoles) -> bool:
    """Whether a token behind the first carries loss by the labels and masks; what is wrong with them is said elsewhere."""
    labels = entries.get(roles.content.get("labels", ""))
    marks: list[Sequence[Any]] = [] if labels is None else [[label != NO_LOSS for label in labels]]
    marks += [entries[column] for column in roles.loss_masks if column in entries]
    return not marks or any(all(of_token) for of_token in list(zip(*marks, strict=True))[1:])


def _shown(values: Mapping[str, Any], roles: ColumnRoles, n_tokens: int) -> tuple[range, ...]:
    """Return the tokens of a row of one sequence, without padding behind them.

    Raises:
        UnusableRowError: the attention mask hides tokens elsewhere.
    """
    mask = values.get(roles.attention_mask) if roles.attention_mask is not None else None
    if not isinstance(mask, list) or len(mask) != n_tokens:
        return (range(n_tokens),)
    return (range(len(without_padding({"input_ids": mask}, mask)["input_ids"])),)


def _pieces(tokens: range, most_tokens: int) -> list[range]:
    """Return stretches of tokens one behind the other, the last one the rest; none of a token alone, which nothing predicts."""
    pieces = [tokens[begin : begin + most_tokens] for begin in range(0, len(tokens), most_tokens)]
    return [piece for piece in pieces if len(piece) > 1]
