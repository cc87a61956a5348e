import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.data.labels import NO_LOSS, LabelledTokens, with_loss_on

loss_masks = st.lists(st.booleans(), min_size=1, max_size=24)
max_lengths = st.integers(1, 30)


def sequence(mask: list[bool]) -> LabelledTokens:
    """Token ids that are all different, so that a token tells where it was."""
    return with_loss_on(np.arange(10, 10 + len(mask)), np.array(mask))


def prompt_and_completion(n_prompt: int, n_completion: int) -> LabelledTokens:
    return sequence([False] * n_prompt + [True] * n_completion)


class TestTruncation:
    @given(loss_masks, max_lengths)
    def test_keeps_consecutive_tokens_with_their_labels_and_as_many_as_fit(
        self, mask: list[bool], max_length: int
    ) -> None:
        tokens = sequence(mask)
        kept = tokens.truncate(max_length)
        assert len(kept) <= max_length
        start = int(kept.input_ids[0]) - 10
        np.testing.assert_array_equal(kept.input_ids, tokens.input_ids[start : start + len(kept)])
        np.testing.assert_array_equal(kept.labels, tokens.labels[start : start + len(kept)])

    @given(loss_masks, st.integers(0, 5))
    def test_leaves_what_fits_as_it_is(self, mask: list[bool], spare: int) -> None:
        kept = sequence(mask).truncate(len(mask) + spare)
        np.testing.assert_array_equal(kept.input_ids, sequence(mask).input_ids)

    @given(st.integers(0, 12), st.integers(1, 12), max_lengths)
    def test_keeps_the_whole_completion_if_it_fits_and_the_end_of_the_prompt(
        self, n_prompt: int, n_completion: int, max_length: int
    ) -> None:
        tokens = prompt_and_completion(n_prompt, n_completion)
        kept = tokens.truncate(max_length)
        expected = tokens.input_ids[n_prompt:][:max_length]
        if n_completion <= max_length:
            expected = tokens.input_ids[-max_length:]
        np.testing.assert_array_equal(kept.input_ids, expected)

    @given(loss_masks, max_lengths)
    def test_keeps_every_token_with_loss_if_their_span_fits(self, mask: list[bool], max_length: int) -> None:
        targets = np.flatnonzero(mask)
        if len(targets) and targets[-1] - targets[0] < max_length:
            kept = sequence(mask).truncate(max_length)
            assert np.count_nonzero(kept.labels != NO_LOSS) == len(targets)

    @given(loss_masks, max_lengths)
    def test_keeps_the_first_token_with_loss(self, mask: list[bool], max_length: int) -> None:
        if any(mask):
            assert 10 + mask.index(True) in sequence(mask).truncate(max_length).labels

    @given(st.integers(1, 24), max_lengths)
    def test_keeps_the_beginning_of_a_text(self, length: int, max_length: int) -> None:
        text = sequence([True] * length)
        np.testing.assert_array_equal(text.truncate(max_length).input_ids, text.input_ids[:max_length])


def test_a_label_at_the_first_position_is_no_target() -> None:
    assert sequence([True, True, False, True]).n_targets == 2
    assert sequence([True]).n_targets == 0
    assert sequence([]).n_targets == 0
