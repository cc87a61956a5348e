from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.demo.passages import LONGEST, SHORTEST, Entry, RepetitionFilter, cut, gather, paragraphs

lines = st.integers(1, 300).map(lambda length: ("word " * length)[:length].strip())
texts = st.lists(st.lists(lines, min_size=1, max_size=4).map("\n".join), min_size=1, max_size=6).map("\n\n".join)
documents = st.lists(st.builds(Entry, st.just("title"), texts), min_size=1, max_size=6)


@given(documents)
def test_cutting_keeps_every_word_in_order(entries):
    whole = " ".join(entry.text for entry in entries).split()
    assert " ".join(piece.text for piece in cut(entries)).split() == whole


@given(documents)
def test_pieces_keep_to_the_longest_length_up_to_half_a_paragraph_at_either_end(entries):
    longest_paragraph = max(len(paragraph) for entry in entries for paragraph in paragraphs(entry.text))
    for piece in cut(entries):
        assert sum(map(len, paragraphs(piece.text))) <= LONGEST + longest_paragraph


@given(documents)
def test_gathering_keeps_every_entry_in_order(entries):
    assert [entry for group in gather(entries) for entry in group] == entries


@given(documents)
def test_gathered_groups_are_long_enough_unless_everything_together_is_too_short(entries):
    lengths = [sum(len(entry.text) for entry in group) for group in gather(entries)]
    assert min(lengths) >= SHORTEST or len(lengths) == 1


def test_a_short_entry_stays_whole():
    assert cut([Entry("title", "one\n\ntwo")]) == [Entry("title", "one\n\ntwo")]


def test_a_piece_has_the_title_of_the_entry_in_which_it_begins():
    first, second = Entry("first", "a" * LONGEST), Entry("second", "b" * LONGEST)
    assert [piece.title for piece in cut([first, second])] == ["first", "second"]


def test_an_example_stays_with_the_colon_that_announces_it():
    assert paragraphs("Write this:\n\n   x = 1\n\nDone.") == ["Write this:\n\n   x = 1", "Done."]


def test_a_table_longer_than_a_passage_is_cut_between_its_lines():
    table = [f"{row:04d} " + "x" * 60 for row in range(30)]
    pieces = paragraphs("\n".join(table))
    assert len(pieces) > 1
    assert "\n".join(pieces).split("\n") == table


def test_a_text_is_new_once_whatever_its_white_space_and_case():
    repetition = RepetitionFilter()
    assert repetition.is_new("The with statement wraps\nthe execution of a block")
    assert not repetition.is_new("the WITH statement   wraps the execution of a block")


def test_a_text_that_adds_little_is_not_new():
    repetition = RepetitionFilter()
    sentence = "one two three four five six seven eight nine ten eleven twelve"
    assert repetition.is_new(sentence)
    assert not repetition.is_new(f"{sentence} thirteen fourteen")


def test_texts_that_share_a_phrase_are_both_new():
    repetition = RepetitionFilter()
    assert repetition.is_new("return true if the object is a directory")
    assert repetition.is_new("return true if the object is callable with keyword arguments only")
