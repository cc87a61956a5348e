import pytest
from transformers import AutoTokenizer

from lorif_assets.demo.tokenizer import BOUNDARY, train_tokenizer

TEXTS = ["The with statement wraps the execution of a block.", "A lambda expression makes a function."] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=320, max_length=64)


def test_any_text_comes_back_unchanged(tokenizer):
    text = "with open(“naïve”) as 🐍:\n\tpass  # two  spaces"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_every_text_begins_with_the_boundary_and_ends_with_its_own_last_token(tokenizer):
    plain = tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert tokenizer(TEXTS[0])["input_ids"] == [tokenizer.bos_token_id, *plain]
    assert tokenizer.bos_token == tokenizer.eos_token == BOUNDARY


def test_padding_has_a_token_of_its_own(tokenizer):
    assert tokenizer.pad_token_id not in {None, tokenizer.eos_token_id}


def test_the_vocabulary_keeps_to_its_size(tokenizer):
    assert 258 < len(tokenizer) <= 320


def test_the_same_texts_give_the_same_tokenizer(tokenizer):
    again = train_tokenizer(TEXTS, vocab_size=320, max_length=64)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_saved_tokenizer_encodes_as_before(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert (loaded.pad_token, loaded.eos_token, loaded.model_max_length) == (tokenizer.pad_token, BOUNDARY, 64)
