"""Tokens as runs of one colour: nothing of the text is lost, and the strongest share has the strongest colour."""

import math

import pytest

from lorif_assets.pages.token_colours import LEVELS, ScoredToken, n_left_out, token_runs

TOKENS = [
    ScoredToken("The", None),
    ScoredToken(" with", None),
    ScoredToken(" statement", 0.01),
    ScoredToken(" opens", 2.0),
    ScoredToken(" a", 1.9),
    ScoredToken(" file", -1.0),
]


def test_adjacent_tokens_of_one_colour_are_one_run_with_their_sum() -> None:
    runs = token_runs(TOKENS)
    assert [(run.text, run.level) for run in runs] == [
        ("The with", 0),
        (" statement", 0),
        (" opens a", LEVELS),
        (" file", -2),
    ]
    assert [run.score for run in runs] == [None, 0.01, pytest.approx(3.9), -1.0]


@pytest.mark.parametrize("tokens", [[], [ScoredToken("a", 0.0)], [ScoredToken("a", None)]])
def test_without_any_share_nothing_is_coloured(tokens: list[ScoredToken]) -> None:
    assert all(run.level == 0 for run in token_runs(tokens))


def test_a_share_that_is_not_finite_has_no_colour_and_spoils_no_other() -> None:
    runs = token_runs([ScoredToken("a", math.nan), ScoredToken("b", 1.0), ScoredToken("c", math.inf)])
    assert [run.level for run in runs] == [0, LEVELS, 0]


def test_tokens_beyond_the_most_are_counted() -> None:
    assert "".join(run.text for run in token_runs(TOKENS, most=2)) == "The with"
    assert n_left_out(TOKENS, most=2) == 4
