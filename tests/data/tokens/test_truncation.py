"""Inputs that are too long are cut by a rule, and stay inputs that a model could have been trained on."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.config.recipe_fields import TruncationRule
from lorif_assets.data.content.labels import NO_LOSS, LabelledTokens
from lorif_assets.data.tokens.truncation import count_front_tokens, truncate
from tests.data.conftest import sequence

RULES = get_args(TruncationRule)
N = NO_LOSS

loss_masks = st.lists(st.booleans(), min_size=1, max_size=24)
max_lengths = st.integers(1, 30)
rules = st.sampled_from(RULES)


def prompt_and_completion(n_prompt: int, n_completion: int) -> LabelledTokens:
    return sequence([False] * n_prompt + [True] * n_completion)


def completion_first(tokens: LabelledTokens, max_length: int) -> LabelledTokens:
    return truncate(tokens, max_length, "completion_first", n_front=1)


class TestEveryRule:
    @given(loss_masks, max_lengths, st.integers(0, 2), rules)
    def test_keeps_as_many_tokens_as_fit_each_with_its_label_or_none(
        self, mask: list[bool], max_length: int, n_front: int, rule: TruncationRule
    ) -> None:
        tokens = sequence(mask)
        kept = truncate(tokens, max_length, rule, min(n_front, len(mask)))
        assert len(kept.labels) == len(kept) <= max_length
        # Nothing is left out at the end to begin later.
        at = kept.input_ids - 10
        assert (np.diff(at) > 0).all()
        gaps = np.flatnonzero(np.diff(at) > 1) + 1
        assert kept.labels[gaps].tolist() == [N] * len(gaps)
        elsewhere = np.delete(np.arange(len(kept)), gaps)
        np.testing.assert_array_equal(kept.labels[elsewhere], tokens.labels[at][elsewhere])

    @given(loss_masks, st.integers(0, 5), rules)
    def test_leaves_what_fits_as_it_is(self, mask: list[bool], spare: int, rule: TruncationRule) -> None:
        tokens = sequence(mask)
        assert truncate(tokens, len(mask) + spare, rule, 1) is tokens

    @given(loss_masks, st.integers(2, 30), st.sampled_from([r for r in RULES if r != "completion_first"]))
    def test_but_the_one_of_before_keeps_the_special_tokens_in_front(
        self, mask: list[bool], max_length: int, rule: TruncationRule
    ) -> None:
        kept = truncate(sequence([False, *mask]), max_length, rule, n_front=1)
        assert kept.input_ids[0] == 10

    @pytest.mark.parametrize("rule", RULES)
    def test_says_what_it_cuts_and_its_name(self, rule: TruncationRule) -> None:
        cut = truncate(prompt_and_completion(4, 4), 5, rule, n_front=1).cut
        assert cut
        assert cut.startswith(
            {
                "keep_start": "0 tokens in front and 3 behind",
                "keep_end": "3 tokens after the first 1 and 0 behind",
                "drop_early_turns": "1 tokens after the first 1 and 2 behind",
                "completion_first": "3 tokens in front and 0 behind",
            }[rule]
        )
        assert cut.endswith(f"of 8: at most 5 are kept (recipe.max_length or the model's context), by the rule {rule}")


# A begin-of-text token (10), a prompt and a completion, cut to five tokens.
@pytest.mark.parametrize(
    ("rule", "n_prompt", "n_completion", "ids", "labels"),
    [
        ("keep_start", 2, 4, [10, 11, 12, 13, 14], [N, N, N, 13, 14]),
        ("keep_start", 6, 2, [10, 11, 12, 13, 14], [N] * 5),
        ("keep_end", 2, 4, [10, 13, 14, 15, 16], [N, N, 14, 15, 16]),
        ("keep_end", 6, 2, [10, 15, 16, 17, 18], [N, N, N, 17, 18]),
        # The whole completion, and the end of the prompt.
        ("drop_early_turns", 6, 2, [10, 15, 16, 17, 18], [N, N, N, 17, 18]),
        # The whole prompt, and the beginning of the completion.
        ("drop_early_turns", 1, 7, [10, 11, 12, 13, 14], [N, N, 12, 13, 14]),
        # Half of each.
        ("drop_early_turns", 6, 7, [10, 15, 16, 17, 18], [N, N, N, 17, 18]),
        ("completion_first", 6, 2, [14, 15, 16, 17, 18], [N, N, N, 17, 18]),
        ("completion_first", 1, 7, [12, 13, 14, 15, 16], [12, 13, 14, 15, 16]),
    ],
)
def test_what_each_rule_keeps_of_a_prompt_and_its_completion(
    rule: TruncationRule, n_prompt: int, n_completion: int, ids: list[int], labels: list[int]
) -> None:
    kept = truncate(prompt_and_completion(1 + n_prompt, n_completion), 5, rule, n_front=1)
    assert kept.input_ids.tolist() == ids
    assert kept.labels.tolist() == labels


@pytest.mark.parametrize(
    ("rule", "ids", "labels"),
    [
        ("keep_start", [10, 11, 12, 13], [10, 11, 12, 13]),
        ("drop_early_turns", [10, 11, 12, 13], [10, 11, 12, 13]),
        # The first token behind the gap would be predicted from what never stood before it.
        ("keep_end", [10, 17, 18, 19], [10, N, 18, 19]),
    ],
)
def test_what_each_rule_keeps_of_a_text(rule: TruncationRule, ids: list[int], labels: list[int]) -> None:
    kept = truncate(sequence([True] * 10), 4, rule, n_front=1)
    assert kept.input_ids.tolist() == ids
    assert kept.labels.tolist() == labels


def test_what_follows_the_completion_goes_first_where_it_has_a_claim() -> None:
    kept = truncate(sequence([False, False, True, True, False, False, False]), 4, "drop_early_turns", n_front=1)
    assert kept.input_ids.tolist() == [10, 11, 12, 13]


@pytest.mark.parametrize(
    ("ids", "leading", "bos", "n_front"),
    [
        ([1, 5, 6], [1], 1, 1),
        ([8, 9, 5], [8, 9], None, 2),
        # A chat template writes the begin-of-text token where the tokenizer adds none.
        ([1, 5, 6], [], 1, 1),
        ([5, 1, 6], [1], 1, 0),
        ([5, 6], [], None, 0),
        ([], [], 1, 0),
    ],
)
def test_special_tokens_in_front_are_those_of_the_tokenizer_or_the_begin_of_text(
    ids: list[int], leading: list[int], bos: int | None, n_front: int
) -> None:
    arrays: Any = np.array(ids, np.int64), np.array(leading, np.int64)
    assert count_front_tokens(*arrays, bos) == n_front


class TestCompletionFirst:
    @given(loss_masks, max_lengths)
    def test_keeps_consecutive_tokens_with_their_labels_and_as_many_as_fit(
        self, mask: list[bool], max_length: int
    ) -> None:
        tokens = sequence(mask)
        kept = completion_first(tokens, max_length)
        assert len(kept) <= max_length
        start = int(kept.input_ids[0]) - 10
        np.testing.assert_array_equal(kept.input_ids, tokens.input_ids[start : start + len(kept)])
        np.testing.assert_array_equal(kept.labels, tokens.labels[start : start + len(kept)])

    @given(loss_masks, st.integers(0, 5))
    def test_leaves_what_fits_as_it_is(self, mask: list[bool], spare: int) -> None:
        kept = completion_first(sequence(mask), len(mask) + spare)
        np.testing.assert_array_equal(kept.input_ids, sequence(mask).input_ids)

    @given(st.integers(0, 12), st.integers(1, 12), max_lengths)
    def test_keeps_the_whole_completion_if_it_fits_and_the_end_of_the_prompt(
        self, n_prompt: int, n_completion: int, max_length: int
    ) -> None:
        tokens = prompt_and_completion(n_prompt, n_completion)
        kept = completion_first(tokens, max_length)
        expected = tokens.input_ids[n_prompt:][:max_length]
        if n_completion <= max_length:
            expected = tokens.input_ids[-max_length:]
        np.testing.assert_array_equal(kept.input_ids, expected)

    @given(loss_masks, max_lengths)
    def test_keeps_every_token_with_loss_if_their_span_fits(self, mask: list[bool], max_length: int) -> None:
        targets = np.flatnonzero(mask)
        if len(targets) and targets[-1] - targets[0] < max_length:
            kept = completion_first(sequence(mask), max_length)
            assert np.count_nonzero(kept.labels != NO_LOSS) == len(targets)

    @given(loss_masks, max_lengths)
    def test_keeps_the_first_token_with_loss(self, mask: list[bool], max_length: int) -> None:
        if any(mask):
            assert 10 + mask.index(True) in completion_first(sequence(mask), max_length).labels

    @given(st.integers(1, 24), max_lengths)
    def test_keeps_the_beginning_of_a_text(self, length: int, max_length: int) -> None:
        text = sequence([True] * length)
        np.testing.assert_array_equal(completion_first(text, max_length).input_ids, text.input_ids[:max_length])
