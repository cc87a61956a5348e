"""Texts that say nearly the same."""

from lorif_assets.influences.duplicates import first_of_its_kind

WORDS = [f"word{number}" for number in range(60)]
TEXT = " ".join(WORDS)


def test_a_text_with_one_word_changed_repeats_the_first():
    changed = " ".join([*WORDS[:30], "other", *WORDS[31:]])
    assert first_of_its_kind([TEXT, "something else entirely", changed]) == [0, 1, 0]


def test_case_and_punctuation_make_no_difference():
    assert first_of_its_kind([TEXT, TEXT.upper().replace(" ", ", ")]) == [0, 0]


def test_texts_that_share_a_half_are_two():
    assert first_of_its_kind([TEXT, " ".join(WORDS[:30] + [f"new{number}" for number in range(30)])]) == [0, 1]


def test_short_texts_are_alike_only_where_their_words_are_equal():
    assert first_of_its_kind(["Yes.", "yes", "No.", "", "…", ""]) == [0, 0, 2, 3, 4, 3]
