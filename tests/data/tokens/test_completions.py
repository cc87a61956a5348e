"""Prompts and completions as one text, by tokenizers of every family, and as they were before."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from lorif_assets.config.sources import Columns
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.examples import normalise
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.preview import preview_rows
from lorif_assets.data.tokens.completions import STRADDLES
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.data.tokens.tokenization import TokenizedExample, TokenizedShard, tokenize
from tests.data.tokenizers import FAMILIES, SlowTokenizer, byte_level, llama, word_piece

MADE = {name: make() for name, make in FAMILIES.items()}
ALL = pytest.mark.parametrize("tokenizer", MADE.values(), ids=MADE)
TEXTS = st.text("the answer is Parisworld,.\n☃é1", max_size=24)


def shard(
    prompt: str,
    completion: str,
    tokenizer: PreTrainedTokenizerBase,
    rules: TokenRules = TokenRules(),  # noqa: B008
) -> TokenizedShard:
    rows: tuple[dict[str, Any], ...] = ({"prompt": prompt, "completion": completion},)
    read = normalise(RawShard("rows", tuple(rows[0]), tuple(enumerate(rows))), Columns(), "s").examples
    return tokenize(read, tokenizer, 256, 10_000, rules=rules)


def example(prompt: str, completion: str, tokenizer: PreTrainedTokenizerBase, **rules: Any) -> TokenizedExample:
    (found,) = shard(prompt, completion, tokenizer, TokenRules(**rules)).examples
    return found


def with_loss(found: TokenizedExample, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(found.labels[found.labels != NO_LOSS].tolist()))


@ALL
@given(prompt=TEXTS, completion=TEXTS.filter(str.strip))
def test_ids_are_those_of_the_prompt_and_completion_as_one_text(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str
) -> None:
    for found in shard(prompt, completion, tokenizer).examples:
        assert found.input_ids.tolist() == tokenizer(prompt + completion)["input_ids"]


@pytest.mark.parametrize("name", [name for name in MADE if name != "bytes, trimmed"])
@given(prompt=TEXTS, completion=TEXTS.filter(str.strip))
def test_loss_is_on_the_tokens_that_begin_in_the_completion(name: str, prompt: str, completion: str) -> None:
    tokenizer = MADE[name]
    places = tokenizer(prompt + completion, return_offsets_mapping=True)["offset_mapping"]
    for found in shard(prompt, completion, tokenizer).examples:
        for (start, end), label in zip(places, found.labels, strict=True):
            if start < end:
                assert (label != NO_LOSS) == (start >= len(prompt))


@given(prompt=TEXTS, completion=TEXTS.filter(str.strip))
def test_loss_is_where_it_is_by_a_tokenizer_that_says_where_spaces_are(prompt: str, completion: str) -> None:
    told, trimmed = (shard(prompt, completion, MADE[name]) for name in ("bytes", "bytes, trimmed"))
    labels = [[found.labels.tolist() for found in one.examples] for one in (told, trimmed)]
    assert labels[0] == labels[1]


@ALL
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("the answer is", " Paris"), ("hello world,\n", "how are you"), ("", "hello world"), ("☃", "☃ é")],
)
def test_where_no_token_reaches_over_the_boundary_loss_is_on_what_the_completion_adds(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str
) -> None:
    alone = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = tokenizer(prompt + completion, add_special_tokens=False)["input_ids"]
    if whole[: len(alone)] != alone:
        pytest.skip("one does")
    found = example(prompt, completion, tokenizer)
    added = found.labels[found.labels != NO_LOSS].tolist()
    assert added[: len(whole) - len(alone)] == whole[len(alone) :]
    assert found.notices == ()


def test_a_dummy_space_is_put_in_front_of_the_prompt_alone() -> None:
    tokenizer = llama()
    found = example("hello", "world", tokenizer)
    joined = "".join(tokenizer.convert_ids_to_tokens(found.input_ids.tolist()))
    assert joined == "<s>▁helloworld"
    apart = example("hello", "world", tokenizer, joint=False)
    assert "".join(tokenizer.convert_ids_to_tokens(apart.input_ids.tolist())) == "<s>▁hello▁world"


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_a_token_with_the_end_of_the_prompt_and_the_beginning_of_the_completion_carries_no_loss(
    trim_offsets: bool,
) -> None:
    tokenizer = byte_level(trim_offsets=trim_offsets)
    found = example("the answer is ", "Paris, world", tokenizer)
    assert tokenizer.convert_ids_to_tokens(found.input_ids.tolist())[3] == "ĠParis"
    assert with_loss(found, tokenizer) == [",", "Ġworld"]
    assert found.notices == (STRADDLES,)


def test_where_white_space_is_in_no_token_it_may_end_the_prompt() -> None:
    tokenizer = word_piece()
    found = example("the answer is ", "Paris", tokenizer)
    assert with_loss(found, tokenizer) == ["paris", "[SEP]"]
    assert found.notices == ()


def test_a_completion_within_a_token_of_the_prompt_is_set_aside_with_a_way_out() -> None:
    found = shard("the answer is ", "Paris", byte_level())
    assert found.examples == ()
    (reason,) = found.rejected["reason"].to_pylist()
    assert "one token holds the end of the prompt and all of the completion" in reason
    assert 'recipe.prompt_completion = "apart"' in reason
    assert len(shard("the answer is ", "Paris", byte_level(), TokenRules(joint=False)).examples) == 1


def test_with_eos_behind_it_such_a_row_is_used_as_trainers_do() -> None:
    tokenizer = byte_level()
    found = example("the answer is ", "Paris", tokenizer, append_eos=True)
    assert with_loss(found, tokenizer) == ["</s>"]
    assert found.notices == (STRADDLES,)


def test_special_tokens_in_front_carry_no_loss_and_those_behind_do() -> None:
    tokenizer = llama("<s> $A </s>")
    found = example("hello", " world", tokenizer)
    assert found.input_ids.tolist() == tokenizer("hello world")["input_ids"]
    assert found.labels[0] == NO_LOSS
    assert with_loss(found, tokenizer)[-1] == "</s>"


class TestSlowTokenizers:
    def test_are_asked_for_the_prompt_alone(self) -> None:
        tokenizer = SlowTokenizer()
        assert not tokenizer.is_fast
        found = example("hello", " world!", tokenizer)
        assert found.input_ids.tolist() == tokenizer("hello world!")["input_ids"]
        assert with_loss(found, tokenizer) == [" world", "!"]

    def test_set_aside_a_row_whose_prompt_they_read_otherwise_alone(self) -> None:
        found = shard("hello ", "world", SlowTokenizer())
        assert found.examples == ()
        (reason,) = found.rejected["reason"].to_pylist()
        assert "'SlowTokenizer' is not a fast one" in reason
        assert "Save it as a fast tokenizer" in reason


def test_preview_shows_the_boundary() -> None:
    raw = RawShard("rows", ("prompt", "completion"), ((0, {"prompt": "the answer is", "completion": " Paris"}),))
    (row,) = preview_rows(raw, Columns(), "s", byte_level(), 64, 400, TokenRules(append_eos=True))
    assert [(piece.text, piece.loss) for piece in row.pieces] == [("the answer is", False), (" Paris</s>", True)]


@given(prompt=TEXTS, completion=TEXTS.filter(str.strip))
def test_apart_prompt_and_completion_are_read_each_by_itself(prompt: str, completion: str) -> None:
    tokenizer = MADE["metaspace"]
    for found in shard(prompt, completion, tokenizer, TokenRules(joint=False)).examples:
        parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion)]
        assert found.input_ids.tolist() == [tokenizer.bos_token_id, *parts[0], *parts[1]]
        np.testing.assert_array_equal(found.labels[found.labels != NO_LOSS], parts[1])
