"""Reasons for setting rows aside: counted by kind, told in a line."""

import pytest

from lorif_assets.data.rows.rejection_reasons import count_reasons, in_words


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        (
            ["duplicate id: row 3 has it already", "duplicate id: row 14 has it already"],
            "duplicate id: row N has it already",
        ),
        (["token id 300 does not fit", "token id -7 does not fit"], "token id N does not fit"),
        (["id (column 'a') is null", "id (column 'b c') is null"], "id (column '...') is null"),
        (['no role "x"', "no role `y`"], "no role '...'"),
        (["notes/a 1.txt: not UTF-8 at byte 3", "notes/b.TXT: not UTF-8 at byte 12"], "'...': not UTF-8 at byte N"),
        (["of 1,200 tokens", "of 3 tokens"], "of N tokens"),
    ],
)
def test_reasons_that_differ_in_numbers_and_names_are_one(reasons: list[str], kind: str) -> None:
    assert count_reasons(reasons) == {kind: 2}


def test_a_reason_that_is_always_the_same_is_told_as_it_is() -> None:
    assert count_reasons(["row 3 has it", "row 3 has it"]) == {"row 3 has it": 2}


def test_the_most_frequent_come_first_and_equal_ones_by_name() -> None:
    assert list(count_reasons(["b", "c", "a", "c"]).items()) == [("c", 2), ("a", 1), ("b", 1)]
    assert count_reasons([]) == {}


def test_in_a_line_the_rare_ones_are_counted_together() -> None:
    counts = {"text is empty": 1_200, "text is null": 3, "a": 2, "b": 1, "c": 1}
    assert in_words(counts) == "text is empty (1,200); text is null (3); a (2); other reasons (2)"
    assert in_words({"a": 1}) == "a (1)"
