"""Queries that ask about more than one completion's loss: their tokens, term by term."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import starmap
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.columns import ContentFormat
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.content.normal_forms import in_each_form
from lorif_assets.data.content.query_objectives import AGAINST, SCALAR, SPAN
from lorif_assets.data.content.scalars import load_scalar
from lorif_assets.data.content.weighted_sets import WEIGHTED, member_rows
from lorif_assets.data.rows.rejected import RejectedRow, excerpt, rejected_table
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.data.tokens.texts import token_texts
from lorif_assets.data.tokens.tokenization import Objective, Term, TokenizedExample, TokenizedShard

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_Row = Mapping[str, Any]
Tokenize = Callable[[pa.Table], TokenizedShard]
"""Tokenizes rows of queries, by what they say alone."""


def tokenized_with_objectives(
    queries: pa.Table, id_column: str, tokenizer: "PreTrainedTokenizerBase", tokenize: Tokenize
) -> TokenizedShard:
    """Return queries as token ids and labels, each with what it asks about; those that cannot be used are listed.

    Args:
        queries: rows of `query_examples`.
        id_column: of the queries' ids.
        tokenizer: of the model.
        tokenize: tokenizes rows.

    Raises:
        MismatchError: the code of a scalar changed since its query was read.
        SourceError: it cannot be imported.
    """
    plain = tokenize(queries)
    has_objectives = "objective" in queries.column_names and queries["objective"].null_count < queries.num_rows
    if not has_objectives:
        return plain
    rows = {row["row"]: row for row in queries.to_pylist()}
    schema = queries.schema

    def of_texts(texts: Sequence[_Row], like: _Row) -> list[TokenizedExample]:
        """Tokenize texts in the place of a query's own."""
        table = pa.Table.from_pylist([{**like, **text, id_column: str(k)} for k, text in enumerate(texts)], schema)
        found = tokenize(table)
        if found.rejected.num_rows:
            raise UnusableRowError(found.rejected["reason"][0].as_py())
        return [replace(example, example_id=like[id_column], row=like["row"]) for example in found.examples]

    examples: list[TokenizedExample] = []
    rejected = [RejectedRow(**{k: v for k, v in bad.items() if k != "place"}) for bad in plain.rejected.to_pylist()]
    for example in plain.examples:
        row = rows[example.row]
        try:
            asked = json.loads(row["objective"] or "{}")
            examples.append(_with_objective(example, asked, row, tokenizer, of_texts))
        except UnusableRowError as reason:
            rejected.append(RejectedRow(example.example_id, example.row, str(reason), excerpt(asked)))
    return TokenizedShard(tuple(examples), rejected_table(rejected))


def _with_objective(
    example: TokenizedExample,
    asked: Mapping[str, Any],
    row: _Row,
    tokenizer: "PreTrainedTokenizerBase",
    of_texts: Callable[[Sequence[_Row], _Row], list[TokenizedExample]],
) -> TokenizedExample:
    if SPAN in asked:
        return _narrowed(example, asked[SPAN], row, tokenizer)
    if AGAINST in asked:
        (other,) = of_texts([_other(row, asked[AGAINST])], row)
        return replace(example, objective=Objective(AGAINST, (Term(1.0, example), Term(-1.0, other))))
    if WEIGHTED in asked:
        weights, members = zip(*member_rows(asked), strict=True)
        terms = tuple(starmap(Term, zip(weights, of_texts(members, row), strict=True)))
        return replace(example, objective=Objective(WEIGHTED, terms))
    if SCALAR in asked:
        return replace(example, objective=Objective(SCALAR, (Term(1.0, example),), load_scalar(asked[SCALAR])))
    return example


def _other(row: _Row, said: str) -> _Row:
    """Return what a row says instead, where it says something else in the place of its completion or last answer."""
    if row["format"] != ContentFormat.MESSAGES:
        return {"text" if row["format"] == ContentFormat.TEXT else "completion": said}
    chat = Conversation.parse(row["messages"])
    # An answer in words takes the place of calls and reasoning too.
    answer = {"role": chat.messages[-1]["role"], "content": said}
    return {"messages": replace(chat, messages=[*chat.messages[:-1], answer]).stored()}


def _narrowed(
    example: TokenizedExample, span: str | Sequence[int], row: _Row, tokenizer: "PreTrainedTokenizerBase"
) -> TokenizedExample:
    """Return an example that carries loss on the tokens of a span alone: those with a character of it."""
    texts = token_texts(example.input_ids, tokenizer)
    seen = "".join(texts)
    ends = np.cumsum([len(text) for text in texts])
    starts = ends - [len(text) for text in texts]
    carries = example.labels != NO_LOSS
    # The first token is predicted from nothing.
    carries[:1] = False

    def inside(first: int, last: int) -> Bool[np.ndarray, " T"]:
        # A token without a text begins the next one's character.
        is_in: Bool[np.ndarray, " T"] = (
            carries & (starts < last) & ((ends > first) | (starts == ends) & (starts >= first))
        )
        return is_in

    def occurrences(text: str) -> list[Bool[np.ndarray, " T"]]:
        places = (found.start() for found in re.finditer(f"(?={re.escape(text)})", seen))
        return [tokens for first in places if (tokens := inside(first, first + len(text))).any()]

    if isinstance(span, str):
        # Tokenizers may normalise what they read, and in a chat another message may have it in another form.
        chosen = next(filter(None, map(occurrences, in_each_form(span))), [])
        if len(chosen) != 1:
            raise UnusableRowError(f"the span {span!r} occurs {len(chosen)} times in the tokens that carry loss")
        return replace(example, labels=np.where(chosen[0], example.labels, NO_LOSS))
    first = seen.rfind(row["completion"] or row["text"])
    if first < 0:
        raise UnusableRowError("what the query says is not among its tokens as it is; name the span by its text")
    tokens = inside(first + span[0], first + span[1])
    if not tokens.any():
        raise UnusableRowError(f"no token that carries loss has a character of the span {list(span)}")
    return replace(example, labels=np.where(tokens, example.labels, NO_LOSS))
