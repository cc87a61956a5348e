"""EOS behind training texts and completions, never twice, and never behind queries, chats and token ids."""

from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sources import Columns
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.examples import normalise
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.tokens.end_of_text import NO_EOS
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.data.tokens.tokenization import TokenizedExample, tokenize
from tests.data.conftest import make_tokenizer
from tests.data.tokenizers import FAMILIES, SlowTokenizer, llama

OF_EXAMPLES, OF_QUERIES = TokenRules.of_examples(Recipe()), TokenRules.of_queries(Recipe())
MAKERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {**FAMILIES, "slow": SlowTokenizer}
ROWS = pytest.mark.parametrize("row", [{"text": "hello world"}, {"prompt": "hello", "completion": " world"}])


def read(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, rules: TokenRules = OF_EXAMPLES) -> TokenizedExample:
    examples = normalise(RawShard("rows", tuple(row), ((0, row),)), Columns(), "s").examples
    (found,) = tokenize(examples, tokenizer, 64, 10_000, rules=rules).examples
    return found


@ROWS
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_follows_a_text_and_a_completion_and_carries_loss(
    make: Callable[[], PreTrainedTokenizerBase], row: dict[str, Any]
) -> None:
    tokenizer = make()
    found = read(row, tokenizer)
    assert found.input_ids.tolist() == [*tokenizer("hello world")["input_ids"], tokenizer.eos_token_id]
    assert found.labels[-1] == tokenizer.eos_token_id


@ROWS
def test_of_a_tokenizer_that_adds_it_by_itself_is_there_once(row: dict[str, Any]) -> None:
    tokenizer = llama("<s> $A </s>")
    for rules in (OF_EXAMPLES, OF_QUERIES):
        found = read(row, tokenizer, rules)
        assert found.input_ids.tolist() == tokenizer("hello world")["input_ids"]
        assert found.input_ids.tolist().count(tokenizer.eos_token_id) == 1
        assert found.labels[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("row", [{"text": "hello world</s>"}, {"prompt": "hello", "completion": " world</s>"}])
def test_that_the_data_write_is_not_doubled(row: dict[str, Any]) -> None:
    tokenizer = make_tokenizer("<s> $A")
    found = read(row, tokenizer)
    assert tokenizer.decode(found.input_ids) == "<s>hello world</s>"
    assert found.labels[-1] == tokenizer.eos_token_id


def test_follows_a_completion_that_is_tokenized_apart() -> None:
    tokenizer = make_tokenizer("<s> $A")
    found = read({"prompt": "hel", "completion": "lo"}, tokenizer, TokenRules(joint=False, append_eos=True))
    assert tokenizer.decode(found.labels[found.labels != NO_LOSS]) == "lo</s>"


@ROWS
def test_is_not_appended_to_queries_nor_where_the_training_appended_none(row: dict[str, Any]) -> None:
    tokenizer = make_tokenizer("<s> $A")
    for rules in (OF_QUERIES, TokenRules.of_examples(Recipe(append_eos=False))):
        assert read(row, tokenizer, rules).input_ids.tolist() == tokenizer("hello world")["input_ids"]


def test_is_left_to_the_template_of_chats_and_to_token_ids() -> None:
    tokenizer = make_tokenizer(chat_template="{% for m in messages %}<|user|>{{ m.content }}{% endfor %}")
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
    assert tokenizer.decode(read({"messages": messages}, tokenizer).input_ids) == "<|user|>hello<|user|>world"
    assert read({"input_ids": [5, 6]}, tokenizer).input_ids.tolist() == [5, 6]


@ROWS
def test_of_a_tokenizer_without_one_is_noticed(row: dict[str, Any]) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    found = read(row, tokenizer)
    assert found.input_ids.tolist() == tokenizer("hello world")["input_ids"]
    assert found.notices == (NO_EOS,)
