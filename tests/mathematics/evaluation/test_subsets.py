import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.mathematics.evaluation.subsets import subset_members

IDS = [f"doc/{number}" for number in range(400)]


@given(n=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 5), subset=st.integers(0, 50))
def test_a_subset_has_its_share_of_the_examples_in_their_order(n, share, seed, subset):
    members = subset_members(IDS[:n], share, seed, subset)
    assert len(members) == min(max(round(share * n), 1), n - 1)
    assert members == [name for name in IDS[:n] if name in set(members)]


def test_the_order_of_the_data_does_not_matter():
    assert set(subset_members(IDS, 0.5, 0, 3)) == set(subset_members(IDS[::-1], 0.5, 0, 3))


def test_subsets_and_seeds_draw_independently():
    half = [set(subset_members(IDS, 0.5, seed, subset)) for seed in range(2) for subset in range(3)]
    for first, one in enumerate(half):
        for other in half[:first]:
            assert 70 <= len(one & other) <= 130


def test_growing_data_keep_nearly_all_that_was_drawn():
    before, after = set(subset_members(IDS[:380], 0.5, 0, 0)), set(subset_members(IDS, 0.5, 0, 0))
    assert len(before - after) <= 15


@pytest.mark.parametrize(("n", "share"), [(10, 0.0), (10, 1.0), (1, 0.5)])
def test_a_subset_that_is_none_or_all_is_refused(n, share):
    with pytest.raises(ValueError, match="share between 0 and 1 of at least two examples"):
        subset_members(IDS[:n], share, 0, 0)
