"""Texts of single tokens: together they are the text, whatever the tokenizer does with bytes and white space."""

import pytest

from lorif_assets.data.tokens.texts import token_texts
from tests.conftest import tiny_tokenizer


@pytest.mark.parametrize(
    "text", ["the with statement opens a file", "naïve — 漢字 and 🙂🙂", "  two  spaces \n\n\tand a tab ", "x"]
)
def test_the_texts_of_a_text_s_tokens_make_it_up(text: str) -> None:
    tokenizer = tiny_tokenizer()
    assert "".join(token_texts(tokenizer(text)["input_ids"], tokenizer)) == text


def test_a_character_of_several_tokens_is_the_last_one_s() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("a🙂b")["input_ids"]
    assert token_texts(ids, tokenizer) == ["a", *[""] * (len(ids) - 3), "🙂", "b"]


def test_special_tokens_have_their_names() -> None:
    tokenizer = tiny_tokenizer()
    assert token_texts([*tokenizer("a")["input_ids"], tokenizer.eos_token_id], tokenizer) == ["a", "<eos>"]


def test_bytes_that_are_no_character_are_shown_as_such() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("🙂")["input_ids"][:2]
    assert token_texts(ids, tokenizer)[-1] == "\N{REPLACEMENT CHARACTER}"
