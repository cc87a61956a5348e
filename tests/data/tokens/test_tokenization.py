from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lorif_assets.config.sources import Columns
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.examples import normalise
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.data.tokens.tokenization import TokenizedExample, TokenizedShard, tokenize
from lorif_assets.errors import CheckpointError, SettingsError
from tests.data.conftest import make_tokenizer

VOCABULARY = 300
APART = TokenRules(joint=False)
CHAT = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|user|>{% endif %}"


def table(*rows: dict[str, Any]) -> pa.Table:
    shard = RawShard("rows", tuple(rows[0]), tuple(enumerate(rows)))
    return normalise(shard, Columns(), "s-00000").examples


def tokenized(
    *rows: dict[str, Any],
    by: PreTrainedTokenizerFast | None = None,
    max_length: int = 64,
    vocab_size: int = VOCABULARY,
    rules: TokenRules = TokenRules(),  # noqa: B008 - frozen
) -> TokenizedShard:
    return tokenize(table(*rows), by or make_tokenizer(), max_length, vocab_size, rules=rules)


def only(shard: TokenizedShard) -> TokenizedExample:
    (example,) = shard.examples
    return example


class TestText:
    def test_is_tokenized_as_the_tokenizer_does_with_loss_on_every_token(self, plain: PreTrainedTokenizerFast) -> None:
        example = only(tokenized({"text": "hello world"}, by=plain))
        assert example.input_ids.tolist() == plain("hello world")["input_ids"]
        np.testing.assert_array_equal(example.labels, example.input_ids)
        assert plain.bos_token_id not in example.input_ids
        assert plain.eos_token_id not in example.input_ids

    def test_has_the_special_tokens_that_the_tokenizer_adds(self) -> None:
        tokenizer = make_tokenizer("<s> $A </s>")
        example = only(tokenized({"text": "hello world"}, by=tokenizer))
        assert tokenizer.decode(example.input_ids) == "<s>hello world</s>"
        assert NO_LOSS not in example.labels

    def test_keeps_its_beginning_when_too_long(self, plain: PreTrainedTokenizerFast) -> None:
        shard = tokenized({"text": "hello world, how are you"}, {"text": "the fox"}, by=plain, max_length=3)
        assert shard.examples[0].input_ids.tolist() == plain("hello world, how are you")["input_ids"][:3]
        assert [example.truncated for example in shard.examples] == [True, False]
        assert shard.n_truncated == 1
        assert [example.n_targets for example in shard.examples] == [2, len(plain("the fox")["input_ids"]) - 1]


class TestPromptAndCompletion:
    def test_the_prompt_carries_no_loss(self, plain: PreTrainedTokenizerFast) -> None:
        example = only(tokenized({"prompt": "hello world", "completion": " how are you"}))
        prompt, completion = plain("hello world")["input_ids"], plain(" how are you")["input_ids"]
        assert example.input_ids.tolist() == prompt + completion
        assert example.labels.tolist() == [NO_LOSS] * len(prompt) + completion

    def test_are_tokenized_apart_where_the_training_did_so(self, plain: PreTrainedTokenizerFast) -> None:
        assert len(plain("hello")["input_ids"]) < len(plain("hel")["input_ids"] + plain("lo")["input_ids"])
        example = only(tokenized({"prompt": "hel", "completion": "lo"}, rules=APART))
        assert example.input_ids.tolist() == plain("hel")["input_ids"] + plain("lo")["input_ids"]

    @pytest.mark.parametrize(
        ("template", "expected"), [("<s> $A </s>", "<s>hello world"), ("$A </s>", "hello world"), (None, "hello world")]
    )
    def test_apart_only_special_tokens_in_front_of_a_text_are_added(self, template: str | None, expected: str) -> None:
        tokenizer = make_tokenizer(template)
        example = only(tokenized({"prompt": "hello", "completion": " world"}, by=tokenizer, rules=APART))
        assert tokenizer.decode(example.input_ids) == expected
        assert tokenizer.decode(example.labels[example.labels != NO_LOSS]) == " world"

    def test_an_empty_prompt_is_its_special_tokens(self) -> None:
        tokenizer = make_tokenizer("<s> $A </s>")
        example = only(tokenized({"prompt": "", "completion": "world"}, by=tokenizer))
        assert example.input_ids[0] == tokenizer.bos_token_id
        assert example.labels[0] == NO_LOSS

    @given(st.text(max_size=20), st.text(min_size=1, max_size=20).filter(str.strip), st.integers(2, 24))
    def test_the_completion_is_kept_first_by_the_rule_of_that_name(
        self, plain: PreTrainedTokenizerFast, prompt: str, completion: str, max_length: int
    ) -> None:
        rules = replace(APART, truncation="completion_first")
        shard = tokenized({"prompt": prompt, "completion": completion}, by=plain, max_length=max_length, rules=rules)
        targets = plain(completion)["input_ids"][:max_length]
        for example in shard.examples:
            assert len(example.input_ids) == len(example.labels) <= max_length
            assert example.labels[example.labels != NO_LOSS].tolist() == targets
        assert len(shard.examples) + shard.rejected.num_rows == 1


class TestInputIds:
    def test_are_used_exactly_as_given(self) -> None:
        shard = tokenized({"input_ids": [5, 1, 5], "labels": [NO_LOSS, NO_LOSS, 7]}, by=make_tokenizer("<s> $A </s>"))
        assert only(shard).input_ids.tolist() == [5, 1, 5]
        assert only(shard).labels.tolist() == [NO_LOSS, NO_LOSS, 7]

    def test_without_labels_carry_loss_throughout(self) -> None:
        assert only(tokenized({"input_ids": [5, 1, 5]})).labels.tolist() == [5, 1, 5]

    def test_that_do_not_fit_the_model_are_set_aside(self) -> None:
        shard = tokenized({"input_ids": [1, 300, 2]}, {"input_ids": [1, 299]}, vocab_size=300)
        assert only(shard).row == 1
        assert shard.rejected.to_pylist() == [
            {
                "example_id": "s-00000/000000",
                "row": 0,
                "reason": "token id 300 does not fit the model, whose embedding has 300 rows",
                "excerpt": '{"input_ids": [1, 300, 2]}',
            }
        ]

    def test_labels_that_do_not_fit_the_model_are_set_aside(self) -> None:
        shard = tokenized({"input_ids": [1, 2], "labels": [1, 300]}, vocab_size=300)
        assert shard.rejected["reason"].to_pylist() == [
            "token id 300 does not fit the model, whose embedding has 300 rows"
        ]


class TestMessages:
    def test_are_rendered_by_the_chat_template(self) -> None:
        messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
        tokenizer = make_tokenizer(chat_template=CHAT)
        example = only(tokenized({"messages": messages}, by=tokenizer))
        assert tokenizer.decode(example.input_ids) == "<|user|>hello<|user|>world"
        assert tokenizer.decode(example.labels[example.labels != NO_LOSS]) == "world"

    def test_without_a_chat_template_are_an_error(self) -> None:
        with pytest.raises(CheckpointError, match="no chat template"):
            tokenized({"messages": [{"role": "assistant", "content": "hi"}]})

    def test_that_the_template_cannot_render_are_set_aside(self) -> None:
        tokenizer = make_tokenizer(chat_template="{{ raise_exception('no') }}")
        shard = tokenized({"messages": [{"role": "assistant", "content": "hi"}]}, by=tokenizer)
        assert shard.examples == ()
        assert shard.rejected["reason"].to_pylist() == ["the chat template refuses the messages: no"]


class TestRowsSetAside:
    def test_without_a_token_to_predict(self) -> None:
        shard = tokenized({"input_ids": [7]}, {"input_ids": [7, 8]})
        assert only(shard).row == 1
        assert shard.rejected["reason"].to_pylist() == [
            "no target token: of 1 tokens, none after the first carries loss"
        ]

    def test_with_loss_on_the_first_token_only(self) -> None:
        shard = tokenized({"input_ids": [7, 8], "labels": [7, NO_LOSS]})
        assert shard.rejected.num_rows == 1

    def test_whose_targets_truncation_takes(self) -> None:
        row = {"input_ids": [1, 2, 3, 4], "labels": [1, NO_LOSS, NO_LOSS, 4]}
        shard = tokenized(row, max_length=2)
        assert shard.rejected["reason"].to_pylist() == [
            "no target token left in the 2 of 4 tokens that are kept by the rule keep_start: raise recipe.max_length, or set "
            "another recipe.truncation"
        ]
        assert only(tokenized(row, max_length=4)).labels.tolist() == row["labels"]

    def test_a_text_of_one_token_unless_the_tokenizer_begins_with_another(self) -> None:
        assert tokenized({"text": "h"}).rejected.num_rows == 1
        assert len(tokenized({"text": "h"}, by=make_tokenizer("<s> $A")).examples) == 1


class TestTables:
    def test_rows_of_several_kinds_come_back_in_their_order(self) -> None:
        rows = pa.concat_tables(
            [table({"text": "hello world"}), table({"input_ids": [1, 2]}), table({"text": "how are you"})]
        )
        shard = tokenize(rows, make_tokenizer(), 64, VOCABULARY)
        plain = make_tokenizer()
        assert [plain.decode(example.input_ids) for example in shard.examples] == [
            "hello world",
            "</s><|user|>",
            "how are you",
        ]

    def test_queries_go_by_their_own_id(self) -> None:
        queries = table({"text": "hello world"}).rename_columns({"example_id": "query_id", "shard": "query_set"})
        shard = tokenize(queries, make_tokenizer(), 64, VOCABULARY, id_column="query_id")
        assert only(shard).example_id == "s-00000/000000"

    def test_no_rows_give_no_examples(self) -> None:
        shard = tokenize(table({"text": "hello"}).slice(0, 0), make_tokenizer(), 64, VOCABULARY)
        assert (shard.examples, shard.rejected.num_rows, shard.n_truncated) == ((), 0, 0)

    def test_a_length_that_leaves_nothing_to_predict_is_refused(self) -> None:
        with pytest.raises(SettingsError, match=r"max_length must be at least 2 tokens.*not 1"):
            tokenized({"text": "hello"}, max_length=1)
