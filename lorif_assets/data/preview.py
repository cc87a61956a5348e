"""What the model sees of a source's rows: their tokens, which of them carry loss, what was cut and what was set aside."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lorif_assets.config.sources import Columns, Source, SourceFormat
from lorif_assets.data.content.labels import NO_LOSS, TokenIds
from lorif_assets.data.content.query_objectives import ScalarRules
from lorif_assets.data.examples import sort_out
from lorif_assets.data.formats.reader import RawShard, ShardSlice
from lorif_assets.data.shards import list_shards, read_shard, read_source, slices_of_source
from lorif_assets.data.tokens.query_terms import tokenized_with_objectives
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.data.tokens.tokenization import Term, TokenizedExample, TokenizedShard, tokenize

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
    """One row of a source, or one term of what a query asks about, as the model sees it, or why it does not.

    `input_ids` and `labels` are what the model is given (labels not shifted, -100 for no loss); in `pieces`, the first
    token never carries loss, as nothing predicts it. `cut` says what was cut and by which rule, `notices` what of the row
    the tokens do not hold, `place` where a person finds it, `weight` what the term's loss is multiplied by.
    """

    example_id: str
    row: int
    place: str = ""
    input_ids: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    pieces: tuple[Piece, ...] = ()
    cut: str | None = None
    rejected: str | None = None
    notices: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def n_targets(self) -> int:
        """Tokens that carry loss; the first one never does."""
        return sum(label != NO_LOSS for label in self.labels[1:])

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values, without its number."""
        return {
            "example_id": self.example_id,
            "place": self.place,
            "input_ids": list(self.input_ids),
            "labels": list(self.labels),
            "pieces": [{"text": piece.text, "loss": piece.loss} for piece in self.pieces],
            "cut": self.cut,
            "rejected": self.rejected,
            "notices": list(self.notices),
            "weight": self.weight,
        }


def first_rows(source: Source, base: Path, rows: int) -> Iterator[tuple[str, RawShard]]:
    """Yield (shard, raw rows) of the first `rows` rows of a source; no more shards are read than that takes.

    Raises:
        SourceError: as `slices_of_source` and `read_shard`, or no file can be read.
    """
    for piece in _readable(source, base):
        raw = _beginning(read_shard(source, piece, base), rows)
        yield piece.shard, raw
        rows -= len(raw.rows) + len(raw.malformed)
        if rows <= 0:
            return


def sampled_rows(source: Source, base: Path, rows: int) -> Iterator[tuple[ShardSlice, RawShard]]:
    """Yield shards that are spread over a source, each with its first rows, `rows` in all at the most.

    Of a Delta table one shard stands for all: rows are dealt to its shards at random, and each reads the whole table.

    Raises:
        SourceError: as `slices_of_source` and `read_shard`, or no file can be read.
    """
    pieces = _readable(source, base)
    many = 1 if pieces[0].kind == SourceFormat.DELTA else min(_SAMPLED_SHARDS, len(pieces))
    chosen = [pieces[k * (len(pieces) - 1) // max(many - 1, 1)] for k in range(many)]
    for piece in chosen:
        yield piece, _beginning(read_shard(source, piece, base), max(rows // many, 1))


def _readable(source: Source, base: Path) -> Sequence[ShardSlice]:
    """Return the shards of the files that can be read.

    Raises:
        SourceError: as `slices_of_source`, or no file can be read.
    """
    pieces = slices_of_source(source, base)
    readable = [piece for piece in pieces if not piece.fault]
    return readable or list_shards(source, base)


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
    scalar_rules: ScalarRules | None = None,
) -> list[PreviewedRow]:
    """Every row of a shard as the model sees it, in the order of the source, by the functions that attribution uses.

    With `scalar_rules`, which say whether Python code may be run, rows are queries, and shown by what they ask about: a
    contrast and a weighted set have a row for each completion.

    Raises:
        SourceError: it is unclear which columns hold the content; or a scalar's code cannot be imported.
        CheckpointError: chat messages, but no chat template or no fast tokenizer.
    """

    def by_content(rows: pa.Table) -> TokenizedShard:
        return tokenize(rows, tokenizer, max_length, vocab_size, rules=rules)

    read = sort_out(raw, columns, shard, scalar_rules)
    if scalar_rules is None:
        tokenized = by_content(read.examples)
    else:
        tokenized = tokenized_with_objectives(read.examples, "example_id", tokenizer, by_content)
    seen = [_seen(example, term, tokenizer) for example in tokenized.examples for term in example.terms]
    for table in (read.rejected, tokenized.rejected):
        seen += [PreviewedRow(bad["example_id"], bad["row"], rejected=bad["reason"]) for bad in table.to_pylist()]
    return [replace(row, place=raw.place(row.row)) for row in sorted(seen, key=lambda row: row.row)]


def _seen(example: TokenizedExample, term: Term, tokenizer: "PreTrainedTokenizerBase") -> PreviewedRow:
    tokens = term.tokens
    return PreviewedRow(
        example.example_id,
        example.row,
        "",
        tuple(tokens.input_ids.tolist()),
        tuple(tokens.labels.tolist()),
        pieces(tokens.input_ids, tokens.labels, tokenizer),
        cut=tokens.cut,
        notices=tokens.notices,
        weight=term.weight,
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
