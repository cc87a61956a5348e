"""Rows of token ids that hold several sequences, as trainers packed them or are to cut them: each becomes a row of its own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lorif_assets.config.sources import Columns
from lorif_assets.data.content.columns import ColumnRoles, ContentFormat, column_roles
from lorif_assets.data.content.token_masks import packed_sequences
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
    found: dict[int, list[Mapping[str, Any]] | MalformedRow] = {line.row: line for line in raw.malformed}
    for row, values in raw.rows:
        try:
            found[row] = _sequences(values, roles, most_tokens)
        except UnusableRowError as reason:
            found[row] = MalformedRow(row, str(reason), excerpt(values))
    if all(found[row] == [] for row, _ in raw.rows):
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
        for number, values in enumerate(one or [whole[row]], start=1):
            rows.append((len(parts), values))
            parts.append(RowPart(row, number if one else None))
    # What is left of them would be metadata of every sequence.
    kept = tuple(name for name in raw.columns if name not in roles.packing)
    return replace(raw, columns=kept, rows=tuple(rows), malformed=tuple(malformed), parts=tuple(parts))


def columns_by_token(columns: Columns, raw: RawShard) -> tuple[str, ...]:
    """Return the columns of a shard that have an entry for each token."""
    return tuple(name for name in column_roles(columns, raw.columns, raw.origin).by_token if name in raw.columns)


def _sequences(values: Mapping[str, Any], roles: ColumnRoles, most_tokens: int | None) -> list[Mapping[str, Any]]:
    """Return the sequences of a row as rows; none where it holds one alone."""
    ids = values.get(roles.content["input_ids"])
    if not isinstance(ids, list):
        return []
    sequences = packed_sequences({column: values.get(column) for column in roles.packing_marks}, len(ids))
    if most_tokens is not None:
        whole = sequences or _shown(values, roles, len(ids))
        if sequences or any(len(tokens) > most_tokens for tokens in whole):
            sequences = tuple(piece for tokens in whole for piece in _pieces(tokens, most_tokens))
    if not sequences:
        return []
    by_token = {column: values[column] for column in roles.by_token if isinstance(values.get(column), list)}
    for column, entries in by_token.items():
        if len(entries) != len(ids):
            raise UnusableRowError(f"{column} has {len(entries)} entries and input_ids {len(ids)}")
    others = {column: value for column, value in values.items() if column not in (*by_token, *roles.packing)}
    rows: list[Mapping[str, Any]] = []
    for number, tokens in enumerate(sequences, start=1):
        own = {column: entries[tokens.start : tokens.stop] for column, entries in by_token.items()}
        if roles.attention_mask in own:
            own[roles.attention_mask] = [int(bool(shows)) for shows in own[roles.attention_mask]]
        if roles.id is not None:
            own[roles.id] = f"{text_of_id(values.get(roles.id), roles.id)}#{number}"
        rows.append(
            {column: own.get(column, others.get(column)) for column in values if column in own or column in others}
        )
    return rows


def _shown(values: Mapping[str, Any], roles: ColumnRoles, n_tokens: int) -> tuple[range, ...]:
    """Return the tokens of a row of one sequence, without padding behind them."""
    mask = values.get(roles.attention_mask) if roles.attention_mask is not None else None
    if not isinstance(mask, list) or len(mask) != n_tokens:
        return (range(n_tokens),)
    return (range(max((place + 1 for place, shows in enumerate(mask) if shows), default=0)),)


def _pieces(tokens: range, most_tokens: int) -> list[range]:
    """Return stretches of tokens one behind the other, the last one the rest; none of a token alone, which nothing predicts."""
    pieces = [tokens[begin : begin + most_tokens] for begin in range(0, len(tokens), most_tokens)]
    return [piece for piece in pieces if len(piece) > 1]
