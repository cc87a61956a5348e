"""Batches within a token budget, and padding."""

from itertools import chain, pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.mathematics.gradients.batching import pad_right, token_budget_batches

LENGTHS = st.lists(st.integers(0, 40), max_size=30)
BUDGET = st.integers(1, 120)


def padded_size(batch: list[int], lengths: list[int]) -> int:
    return len(batch) * max(lengths[i] for i in batch)


@settings(deadline=None, max_examples=80)
@given(LENGTHS, BUDGET)
def test_batches_partition_the_examples(lengths, budget):
    assert sorted(i for batch in token_budget_batches(lengths, budget) for i in batch) == list(range(len(lengths)))


@settings(deadline=None, max_examples=80)
@given(LENGTHS, BUDGET)
def test_padded_batches_keep_within_the_budget_unless_one_example_exceeds_it(lengths, budget):
    for batch in token_budget_batches(lengths, budget):
        assert padded_size(batch, lengths) <= budget or len(batch) == 1


@settings(deadline=None, max_examples=80)
@given(LENGTHS, BUDGET)
def test_the_batch_of_the_largest_padded_size_comes_first(lengths, budget):
    sizes = [padded_size(batch, lengths) for batch in token_budget_batches(lengths, budget)]
    assert sizes == sorted(sizes, reverse=True)


@settings(deadline=None, max_examples=80)
@given(LENGTHS, BUDGET, st.randoms())
def test_examples_of_like_length_share_a_batch_so_no_batch_could_take_its_successor(lengths, budget, random):
    """Consecutive lengths without a gap, and the order of examples decides nothing but indices."""
    batches = sorted(token_budget_batches(lengths, budget), key=lambda batch: -lengths[batch[0]])
    shape = [[lengths[i] for i in batch] for batch in batches]
    assert list(chain.from_iterable(shape)) == sorted(lengths, reverse=True)
    for batch, following in pairwise(shape):
        assert (len(batch) + 1) * max(batch[0], following[0]) > budget
    shuffled = random.sample(lengths, len(lengths))
    again = sorted(token_budget_batches(shuffled, budget), key=lambda batch: -shuffled[batch[0]])
    assert [[shuffled[i] for i in batch] for batch in again] == shape


def test_equal_lengths_keep_their_order():
    assert token_budget_batches([5, 5, 5, 5, 5], 10) == [[0, 1], [2, 3], [4]]


def test_no_examples_make_no_batches():
    assert token_budget_batches([], 100) == []


def test_padding_on_the_right_is_masked_and_carries_no_loss():
    batch = pad_right([[7, 8, 9], [5]], [[-100, 8, 9], [5]])
    assert batch.input_ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert batch.attention_mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.labels.tolist() == [[-100, 8, 9], [5, -100, -100]]
    assert {batch.input_ids.dtype, batch.labels.dtype} == {torch.int64}
