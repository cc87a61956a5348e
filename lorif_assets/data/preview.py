"""What the model sees of a source's rows: their tokens, which of them carry loss, what was cut and what was set aside."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lorif_assets.config.sources import Columns, Source, SourceFormat
from lorif_assets.data.examples import sort_out
from lorif_assets.data.formats.reader import RawShard, ShardSlice
from lorif_assets.data.labels import NO_LOSS, TokenIds
from lorif_assets.data.shards import list_shards, read_shard, read_source
from lorif_assets.data.token_rules import TokenRules
from lorif_assets.data.tokenization import TokenizedExample, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_SAMPLED_SHARDS = 16
_AS_THE_TOKENIZER_DOES = TokenRules()


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens as text, and whether they carry loss."""

    text: str
    loss: bool


@dataclass(frozen=True)
class PreviewedRow:
    """One row of a source as the model sees it, or why it does not.

    `input_ids` and `labels` are what the model is given (labels not shifted, -100 for no loss); in `pieces`, the first
    token never carries loss, as nothing predicts it. `cut` says what was cut and by which rule, `notices` what of the row
    the tokens do not hold.
    """

    example_id: str
    row: int
    input_ids: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    pieces: tuple[Piece, ...] = ()
    cut: str | None = None
    rejected: str | None = None
    notices: tuple[str, ...] = ()

    @property
    def n_targets(self) -> int:
        """Tokens that carry loss; the first one never does."""
        return sum(label != NO_LOSS for label in self.labels[1:])

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values, without its number and notices."""
        return {
            "example_id": self.example_id,
            "input_ids": list(self.input_ids),
            "labels": list(self.labels),
            "pieces": [{"text": piece.text, "loss": piece.loss} for piece in self.pieces],
            "cut": self.cut,
            "rejected": self.rejected,
        }


def first_rows(source: Source, base: Path, rows: int) -> Iterator[tuple[str, RawShard]]:
    """Yield (shard, raw rows) of the first `rows` rows of a source; no more shards are read than that takes.

    Raises:
        SourceError: as `list_shards` and `read_shard`.
    """
    for piece in list_shards(source, base):
        raw = _beginning(read_shard(source, piece, base), rows)
        yield piece.shard, raw
        rows -= len(raw.rows) + len(raw.malformed)
        if rows <= 0:
            return


def sampled_rows(source: Source, base: Path, rows: int) -> Iterator[tuple[ShardSlice, RawShard]]:
    """Yield shards that are spread over a source, each with its first rows, `rows` in all at the most.

    Of a Delta table one shard stands for all: rows are dealt to its shards at random, and each reads the whole table.

    Raises:
        SourceError: as `list_shards` and `read_shard`.
    """
    pieces = list_shards(source, base)
    many = 1 if pieces[0].kind == SourceFormat.DELTA else min(_SAMPLED_SHARDS, len(pieces))
    chosen = [pieces[k * (len(pieces) - 1) // max(many - 1, 1)] for k in range(many)]
    for piece in chosen:
        yield piece, _beginning(read_shard(source, piece, base), max(rows // many, 1))


def first_queries(source: Source, base: Path, rows: int) -> Iterator[tuple[str, RawShard]]:
    """Yield (query set, raw rows) of the first `rows` rows of a query set, whose rows are numbered through.

    Raises:
        SourceError: as `read_source`.
    """
    yield source.name, _beginning(read_source(source, base), rows)


def _beginning(raw: RawShard, rows: int) -> RawShard:
    numbers = sorted([row for row, _ in raw.rows] + [line.row for line in raw.malformed])[:rows]
    last = numbers[-1] if numbers else -1
    return replace(
        raw,
        rows=tuple((row, values) for row, values in raw.rows if row <= last),
        malformed=tuple(line for line in raw.malformed if line.row <= last),
    )


def preview_rows(
    raw: RawShard,
    columns: Columns,
    shard: str,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    vocab_size: int,
    rules: TokenRules = _AS_THE_TOKENIZER_DOES,
) -> list[PreviewedRow]:
    """Every row of a shard as the model sees it, in the order of the source, by the functions that attribution uses.

    Raises:
        SourceError: it is unclear which columns hold the content.
        CheckpointError: chat messages, but no chat template or no fast tokenizer.
    """
    read = sort_out(raw, columns, shard)
    tokenized = tokenize(read.examples, tokenizer, max_length, vocab_size, rules=rules)
    seen = [_seen(example, tokenizer) for example in tokenized.examples]
    for table in (read.rejected, tokenized.rejected):
        seen += [PreviewedRow(bad["example_id"], bad["row"], rejected=bad["reason"]) for bad in table.to_pylist()]
    return sorted(seen, key=lambda row: row.row)


def _seen(example: TokenizedExample, tokenizer: "PreTrainedTokenizerBase") -> PreviewedRow:
    return PreviewedRow(
        example.example_id,
        example.row,
        tuple(example.input_ids.tolist()),
        tuple(example.labels.tolist()),
        pieces(example.input_ids, example.labels, tokenizer),
        cut=example.cut,
        notices=example.notices,
    )


def pieces(input_ids: TokenIds, labels: TokenIds, tokenizer: "PreTrainedTokenizerBase") -> tuple[Piece, ...]:
    """Text of each run of tokens [T] that carry loss or do not; special tokens are shown."""
    loss = labels != NO_LOSS
    loss[:1] = False
    ends = [0, *(np.flatnonzero(loss[1:] != loss[:-1]) + 1).tolist(), len(loss)]
    found, before = [], ""
    for start, end in pairwise(ends):
        through = _text(input_ids[:end], tokenizer)
        # Decoders may drop the space in front of a text: what a run adds to the text before it keeps its own.
        added = through.removeprefix(before) if through.startswith(before) else _text(input_ids[start:end], tokenizer)
        found.append(Piece(added, bool(loss[start])))
        before = through
    return tuple(found)


def _text(ids: TokenIds, tokenizer: "PreTrainedTokenizerBase") -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))
