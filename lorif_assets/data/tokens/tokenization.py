"""From examples to token ids and labels, by the checkpoint's own tokenizer.

Nothing is added that the tokenizer does not add itself, but EOS after texts and completions where the rules ask for it.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from lorif_assets.config.recipe_fields import TruncationRule
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.columns import ContentFormat
from lorif_assets.data.content.labels import NO_LOSS, LabelledTokens, TokenIds, with_loss_on
from lorif_assets.data.rows.rejected import RejectedRow, excerpt, rejected_table
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.data.tokens.chat import encode_conversations
from lorif_assets.data.tokens.completions import encode_apart, encode_jointly, lost_completion, token_ids
from lorif_assets.data.tokens.early_turns import encode_later_turns
from lorif_assets.data.tokens.end_of_text import with_eos
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.data.tokens.tokenizer_faults import encoded_apart
from lorif_assets.data.tokens.tokenizer_trial import overruns
from lorif_assets.data.tokens.truncation import count_front_tokens, truncate
from lorif_assets.errors import SettingsError
from lorif_assets.lake.data_tables import EXAMPLE_CONTENT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lorif_assets.data.content.scalars import Scalar

_log = logging.getLogger(__name__)

_AS_THE_TOKENIZER_DOES = TokenRules()

_Row = Mapping[str, Any]
_Encoded = LabelledTokens | UnusableRowError
_Encoder = Callable[[Sequence[_Row], "PreTrainedTokenizerBase", TokenRules], list[_Encoded]]
_CONTENT_COLUMNS = tuple(name for name in EXAMPLE_CONTENT if name not in ("content_hash", "metadata"))


@dataclass(frozen=True, eq=False)
class Term:
    """A part of what a query asks about: a weight times the loss of some tokens."""

    weight: float
    tokens: "TokenizedExample"


@dataclass(frozen=True, eq=False)
class Objective:
    """What a query asks about where that is not its own loss: a weighted sum of losses, or a scalar of the model's output.

    `kind` is the field of the query file that says it. A scalar is of its only term's tokens.
    """

    kind: str
    terms: tuple[Term, ...]
    scalar: "Scalar | None" = None


@dataclass(frozen=True, eq=False)
class TokenizedExample:
    """Token ids and labels [T] of one example; labels are not shifted, -100 carries no loss.

    `cut` says what was cut of an example that is too long, and by which rule; `notices` what the tokens do not hold of
    the row, or hold otherwise than the row does. `objective` is what a query asks about, where it is not this loss.
    """

    example_id: str
    row: int
    input_ids: TokenIds
    labels: TokenIds
    cut: str | None = None
    notices: tuple[str, ...] = ()
    objective: Objective | None = None

    @property
    def terms(self) -> tuple[Term, ...]:
        """What the query asks about, term by term."""
        return self.objective.terms if self.objective else (Term(1.0, self),)

    @property
    def scalar(self) -> "Scalar | None":
        """The scalar that the query asks about, where it is no loss."""
        return self.objective.scalar if self.objective else None

    @property
    def cuts(self) -> tuple[str, ...]:
        """What was cut of the query, and of what else it asks about, without repetitions."""
        return tuple(dict.fromkeys(term.tokens.cut for term in self.terms if term.tokens.cut))

    @property
    def truncated(self) -> bool:
        """Whether only a part of the example is used."""
        return self.cut is not None

    @property
    def n_targets(self) -> int:
        """Tokens that carry loss, of all terms; the first token of an example is predicted from nothing, so never does."""
        return sum(int((term.tokens.labels[1:] != NO_LOSS).sum()) for term in self.terms)


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

    def logged(self) -> Self:
        """Write the notices to the log, and return the shard."""
        for notice, count in self.notices.items():
            _log.warning("%d of %d rows: %s", count, len(self.examples) + len(self.rejected), notice)
        return self


def tokenize(
    examples: pa.Table,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    vocab_size: int,
    id_column: str = "example_id",
    rules: TokenRules = _AS_THE_TOKENIZER_DOES,
) -> TokenizedShard:
    """Token ids and labels of the rows of `training_examples` (or `query_examples`, with `id_column="query_id"`).

    text: the loss is on every token. prompt_completion: see `completions`. messages: see `chat`. input_ids: as given,
    with labels as given or the loss on every token. Where `rules` say so, EOS is appended to texts and completions.

    Longer sequences are cut to `max_length` tokens by the rule `rules.truncation` (see `truncation`, `early_turns`). Rows are
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
    encoded_rows = _encode(rows, tokenizer, rules)
    if rules.truncation == "drop_early_turns":
        _drop_early_turns(rows, encoded_rows, tokenizer, max_length, rules)
    leading = _leading_special_ids(tokenizer)
    for row, encoded in zip(rows, encoded_rows, strict=True):
        example_id, number = row[id_column], row["row"]
        try:
            tokens = _usable(encoded, vocab_size)
            n_front = count_front_tokens(tokens.input_ids, leading, tokenizer.bos_token_id)
            kept = truncate(tokens, max_length, rules.truncation, n_front)
            if not kept.n_targets:
                raise UnusableRowError(_no_target(len(tokens), max_length, rules.truncation))
        except UnusableRowError as reason:
            shown = {name: row[name] for name in _CONTENT_COLUMNS if name != "format"}
            rejected.append(RejectedRow(example_id, number, str(reason), excerpt(shown)))
        else:
            tokenized.append(TokenizedExample(example_id, number, kept.input_ids, kept.labels, kept.cut, kept.notices))
    return TokenizedShard(tuple(tokenized), rejected_table(rejected))


def _encode(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase", rules: TokenRules) -> list[_Encoded]:
    encoded: dict[int, _Encoded] = {**overruns(rows, tokenizer)}
    for kind, encoder in _ENCODERS.items():
        chosen = [k for k, row in enumerate(rows) if row["format"] == kind and k not in encoded]
        if chosen:

            def encode(some: Sequence[_Row], encoder: _Encoder = encoder) -> list[_Encoded]:
                return encoder(some, tokenizer, rules)

            encoded.update(zip(chosen, encoded_apart(encode, [rows[k] for k in chosen]), strict=True))
    return [encoded[k] for k in range(len(rows))]


def _drop_early_turns(
    rows: Sequence[_Row],
    encoded: list[_Encoded],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    rules: TokenRules,
) -> None:
    """Replace chats that are too long by their later exchanges."""
    too_long = [
        k
        for k, (row, tokens) in enumerate(zip(rows, encoded, strict=True))
        if row["format"] == ContentFormat.MESSAGES and isinstance(tokens, LabelledTokens) and len(tokens) > max_length
    ]
    conversations = [Conversation.parse(rows[k]["messages"]) for k in too_long]
    encode = partial(encode_later_turns, tokenizer=tokenizer, max_length=max_length, day=rules.template_date)
    for k, later in zip(too_long, encoded_apart(encode, conversations), strict=True):
        encoded[k] = later


def _usable(encoded: _Encoded, vocab_size: int) -> LabelledTokens:
    if isinstance(encoded, UnusableRowError):
        raise encoded
    largest = max((int(ids.max()) for ids in (encoded.input_ids, encoded.labels) if len(ids)), default=0)
    if largest >= vocab_size:
        raise UnusableRowError(f"token id {largest} does not fit the model, whose embedding has {vocab_size} rows")
    return encoded


def _no_target(length: int, max_length: int, rule: TruncationRule) -> str:
    if length > max_length:
        return (
            f"no target token left in the {max_length} of {length} tokens that are kept by the rule {rule}: raise "
            "recipe.max_length, or set another recipe.truncation"
        )
    return f"no target token: of {length} tokens, none after the first carries loss"


def _encode_texts(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase", rules: TokenRules) -> list[_Encoded]:
    encoded = [
        with_loss_on(ids, np.ones(len(ids), np.bool_))
        for ids in token_ids([row["text"] for row in rows], tokenizer, special=True)
    ]
    return [with_eos(tokens, tokenizer) if rules.append_eos else tokens for tokens in encoded]


def _encode_completions(
    rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase", rules: TokenRules
) -> list[_Encoded]:
    encode = encode_jointly if rules.joint else encode_apart
    prompts, completions = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    encoded: list[_Encoded] = []
    for tokens in encode(prompts, completions, tokenizer, _leading_special_ids(tokenizer)):
        if isinstance(tokens, LabelledTokens):
            ended = with_eos(tokens, tokenizer) if rules.append_eos else tokens
            encoded.append(lost_completion(ended) or ended)
        else:
            encoded.append(tokens)
    return encoded


def _encode_messages(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase", rules: TokenRules) -> list[_Encoded]:
    conversations = [Conversation.parse(row["messages"]) for row in rows]
    return encode_conversations(conversations, tokenizer, rules.template_date)


def _encode_input_ids(rows: Sequence[_Row], tokenizer: "PreTrainedTokenizerBase", rules: TokenRules) -> list[_Encoded]:
    del tokenizer, rules  # the ids are used exactly as given
    return [
        LabelledTokens(
            np.asarray(row["input_ids"], np.int64),
            np.asarray(row["input_ids"] if row["labels"] is None else row["labels"], np.int64),
        )
        for row in rows
    ]


_ENCODERS: Mapping[str, _Encoder] = {
    ContentFormat.TEXT: _encode_texts,
    ContentFormat.PROMPT_COMPLETION: _encode_completions,
    ContentFormat.MESSAGES: _encode_messages,
    ContentFormat.INPUT_IDS: _encode_input_ids,
}


def _leading_special_ids(tokenizer: "PreTrainedTokenizerBase") -> TokenIds:
    """Ids that the tokenizer puts in front of a text: tried on a letter, as no setting of a tokenizer says it."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    marked = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return np.asarray([token for token, _ in takewhile(lambda pair: pair[1] == 1, marked)], np.int64)
