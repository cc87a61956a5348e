"""From examples to token ids and labels, by the checkpoint's own tokenizer.

Nothing is added that the tokenizer does not add itself: no end-of-text token after a text or completion.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lorif_assets.data.chat import encode_conversations
from lorif_assets.data.columns import ContentFormat
from lorif_assets.data.conversations import Conversation
from lorif_assets.data.labels import NO_LOSS, LabelledTokens, TokenIds, with_loss_on
from lorif_assets.data.rejected import RejectedRow, UnusableRowError, excerpt, rejected_table
from lorif_assets.errors import SettingsError
from lorif_assets.lake.attribution_tables import EXAMPLE_CONTENT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_Row = Mapping[str, Any]
_Encoded = LabelledTokens | UnusableRowError
_CONTENT_COLUMNS = tuple(name for name in EXAMPLE_CONTENT if name not in ("content_hash", "metadata"))


@dataclass(frozen=True, eq=False)
class TokenizedExample:
    """Token ids and labels [T] of one example; labels are not shifted, -100 carries no loss.

    `cut` says what was cut of an example that is too long, and by which rule; `notices` what the tokens do not hold of
    the row, or hold otherwise than the row does.
    """

    example_id: str
    row: int
    input_ids: TokenIds
    labels: TokenIds
    cut: str | None = None
    notices: tuple[str, ...] = ()

    @property
    def truncated(self) -> bool:
        """Whether only a part of the example is used."""
        return self.cut is not None

    @property
    def n_targets(self) -> int:
        """Tokens that carry loss; the first token of an example is predicted from nothing, so never does."""
        return int((self.labels[1:] != NO_LOSS).sum())


def n_tokens(examples: Iterable[TokenizedExample]) -> int:
    """Return the number of tokens of all examples."""
    return sum(len(example.input_ids) for example in examples)


@dataclass(frozen=True)
class TokenizedShard:
    """Examples in the order of their table, and the rows set aside (example_id, row, reason, excerpt)."""

    examples: tuple[TokenizedExample, ...]
    rejected: pa.Table

    @property
    def n_truncated(self) -> int:
        """Examples of which only a part is used."""
        return sum(example.truncated for example in self.examples)

    @property
    def notices(self) -> Counter[str]:
        """What a person should know of the examples, and of how many it holds."""
        return Counter(notice for example in self.examples for notice in example.notices)


def tokenize(
    examples: pa.Table,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    vocab_size: int,
    id_column: str = "example_id",
) -> TokenizedShard:
    """Token ids and labels of the rows of `training_examples` (or `query_examples`, with `id_column="query_id"`).

    text: the loss is on every token. prompt_completion: prompt, with the special tokens that the tokenizer puts in
    front, and completion are tokenized apart; the loss is on the completion. messages: see `chat`. input_ids: as given,
    with labels as given or the loss on every token.

    Longer sequences are truncated to `max_length` tokens as `LabelledTokens.truncate` says: completion first. Rows are
    set aside that have no token with loss after the first position, or an id that is not below `vocab_size`, the rows
    of the model's embedding.

    Raises:
        SettingsError: `max_length` is below 2, which leaves no token to predict.
        CheckpointError: chat messages, but no chat template or no fast tokenizer.
    """
    if max_length < 2:
        raise SettingsError(f"max_length must be at least 2 tokens (one to predict another from), not {max_length}")
    rows = examples.select([id_column, "row", *_CONTENT_COLUMNS]).to_pylist()
    tokenized: list[TokenizedExample] = []
    rejected: list[RejectedRow] = []
    for row, encoded in zip(rows, _encode(rows, tokenizer), strict=True):
        example_id, number = row[id_column], row["row"]
        try:
            tokens = _usable(encoded, vocab_size)
            kept = tokens.truncate(max_length)
            if not kept.n_targets:
                raise UnusableRowError(_no_target(len(tokens), max_length))
        except UnusableRowError as reason:
            shown = {name: row[name] for name in _CONTENT_COLUMNS if name != "format"}
            rejected.append(RejectedRow(example_id, number, str(reason), excerpt(shown)))
        else:
            cut = tokens.cut(max_length)
            tokenized.append(TokenizedExample(example_id, number, kept.input_ids, kept.labels, cut, kept.notices))
    shard = TokenizedShard(tuple(tokenized), rejected_table(rejected))
    for notice, count in shard.notices.items():
        _log.warning("%d of %d rows: %s", count, len(rows), notice)
    return shard


def _encode(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase") -> list[_Encoded]:
    encoded: dict[int, _Encoded] = {}
    for kind, encoder in _ENCODERS.items():
        chosen = [k for k, row in enumerate(rows) if row["format"] == kind]
        if chosen:
            encoded.update(zip(chosen, encoder([rows[k] for k in chosen], tokenizer), strict=True))
    return [encoded[k] for k in range(len(rows))]


def _usable(encoded: _Encoded, vocab_size: int) -> LabelledTokens:
    if isinstance(encoded, UnusableRowError):
        raise encoded
    largest = max((int(ids.max()) for ids in (encoded.input_ids, encoded.labels) if len(ids)), default=0)
    if largest >= vocab_size:
        raise UnusableRowError(f"token id {largest} does not fit the model, whose embedding has {vocab_size} rows")
    return encoded


def _no_target(length: int, max_length: int) -> str:
    if length > max_length:
        return f"no target token left in the {max_length} of {length} tokens that are kept"
    return f"no target token: of {length} tokens, none after the first carries loss"


def _encode_texts(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase") -> list[_Encoded]:
    return [
        with_loss_on(ids, np.ones(len(ids), np.bool_))
        for ids in _token_ids([row["text"] for row in rows], tokenizer, special=True)
    ]


def _encode_completions(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase") -> list[_Encoded]:
    leading = _leading_special_ids(tokenizer)
    prompts = _token_ids([row["prompt"] for row in rows], tokenizer, special=False)
    completions = _token_ids([row["completion"] for row in rows], tokenizer, special=False)
    return [
        LabelledTokens(
            np.concatenate([leading, prompt, completion]),
            np.concatenate([np.full(len(leading) + len(prompt), NO_LOSS), completion]),
        )
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def _encode_messages(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase") -> list[_Encoded]:
    return encode_conversations([Conversation.parse(row["messages"]) for row in rows], tokenizer)


def _encode_input_ids(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase") -> list[_Encoded]:
    del tokenizer  # the ids are used exactly as given
    return [
        LabelledTokens(
            np.asarray(row["input_ids"], np.int64),
            np.asarray(row["input_ids"] if row["labels"] is None else row["labels"], np.int64),
        )
        for row in rows
    ]


_ENCODERS: Mapping[str, Callable[[Sequence[_Row], "PreTrainedTokenizerBase"], list[_Encoded]]] = {
    ContentFormat.TEXT: _encode_texts,
    ContentFormat.PROMPT_COMPLETION: _encode_completions,
    ContentFormat.MESSAGES: _encode_messages,
    ContentFormat.INPUT_IDS: _encode_input_ids,
}


def _token_ids(texts: list[str], tokenizer: "PreTrainedTokenizerBase", *, special: bool) -> list[TokenIds]:
    encoded = tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
    return [np.asarray(ids, np.int64) for ids in encoded["input_ids"]]


def _leading_special_ids(tokenizer: "PreTrainedTokenizerBase") -> TokenIds:
    """Ids that the tokenizer puts in front of a text: tried on a letter, as no setting of a tokenizer says it."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    marked = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return np.asarray([token for token, _ in takewhile(lambda pair: pair[1] == 1, marked)], np.int64)
