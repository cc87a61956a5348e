"""Near-duplicates: texts that share most runs of three words."""

from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.data.near_duplicates import near_duplicates, shingles

PASSAGE = (
    "The with statement opens a file and closes it when its block ends or fails by an error, so that nothing is left open "
    "whatever happens inside of the block, and the file is there for others to read as soon as the block is left."
)


def test_a_text_with_a_word_changed_is_folded_under_the_first() -> None:
    texts = [
        PASSAGE,
        "Something else entirely, about other things.",
        PASSAGE.replace("soon", "quickly"),
        PASSAGE.upper(),
    ]
    assert near_duplicates(texts) == [[0, 2, 3], [1]]


def test_half_of_a_text_is_no_near_duplicate() -> None:
    assert near_duplicates([PASSAGE, PASSAGE[: len(PASSAGE) // 2]]) == [[0], [1]]


def test_short_texts_are_near_duplicates_of_the_same_words_alone() -> None:
    assert near_duplicates(["a file", "a  FILE", "a dict", "", " "]) == [[0, 1], [2], [3, 4]]


@given(st.lists(st.text(max_size=40), max_size=12))
def test_every_text_is_in_one_group_and_equal_ones_share_it(texts: list[str]) -> None:
    groups = near_duplicates(texts)
    assert sorted(place for group in groups for place in group) == list(range(len(texts)))
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    assert all(group == sorted(group) for group in groups)
    group_of = {place: group[0] for group in groups for place in group}
    for place, text in enumerate(texts):
        same = texts.index(text)
        assert group_of[place] == group_of[same]
        assert shingles(text)
