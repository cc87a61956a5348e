"""Leakage: equal texts and near-duplicates are found, different ones are not."""

from lorif_assets.mathematics.influcoder.leakage import overlaps, without_near_duplicates

TEXT = "the with statement opens a file and closes it when its block ends or fails by an error of any kind"
EDITED = TEXT.replace("any kind", "some kind").capitalize() + "."
OTHER = "a lambda expression makes a small function without a name that returns what its expression gives"


def test_equal_texts_overlap_wholly() -> None:
    (found,) = overlaps([OTHER, TEXT], [TEXT])
    assert (found.left, found.right, found.similarity) == (1, 0, 1.0)


def test_a_text_with_a_word_changed_is_a_near_duplicate() -> None:
    (found,) = overlaps([TEXT], [EDITED])
    assert 0.8 <= found.similarity < 1.0


def test_different_texts_do_not_overlap() -> None:
    assert overlaps([TEXT], [OTHER]) == []
    assert overlaps(["---"], ["***"]) == []
    assert overlaps([], [TEXT]) == []


def test_short_texts_are_compared_as_a_whole() -> None:
    assert len(overlaps(["Yes, sir"], ["yes sir", "yes"])) == 1


def test_of_near_duplicates_the_first_stays() -> None:
    assert without_near_duplicates([OTHER, TEXT, EDITED, TEXT, "something else altogether here"]) == [0, 1, 4]
    assert without_near_duplicates([]) == []


def test_a_text_like_only_a_dropped_one_stays() -> None:
    words = [f"w{i}" for i in range(60)]
    chain = [" ".join([*(f"x{i}" for i in range(shift)), *words[shift:]]) for shift in (0, 5, 10)]
    assert without_near_duplicates(chain) == [0, 2]
