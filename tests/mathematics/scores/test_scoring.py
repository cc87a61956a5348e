"""Scores summed over layers, and what is kept of them while they stream past."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.scores import scoring
from lorif_assets.mathematics.scores.scoring import (
    ScoreExtremes,
    ScoreMoments,
    block_scores,
    low_rank_queries,
    share_of_positive,
)
from tests.mathematics.references import extremes

# Few distinct values, so that ties are common.
SCORE_ROWS = st.integers(0, 3).flatmap(
    lambda n_queries: st.integers(0, 25).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 3.0]), min_size=n, max_size=n),
            min_size=n_queries,
            max_size=n_queries,
        ).map(lambda rows: torch.tensor(rows, dtype=torch.float32).reshape(n_queries, n))
    )
)


def cut_at(data: st.DataObject, n: int) -> list[tuple[int, int]]:
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=5), label="cuts")), n]
    return list(pairwise(edges))


def stream(scores: Tensor, k: int, blocks: list[tuple[int, int]]) -> ScoreExtremes:
    found = ScoreExtremes.empty(scores.shape[0], k)
    for first, last in blocks:
        found = found.update(scores[:, first:last], first)
    return found


# --- Scores ---------------------------------------------------------------------------------------------------------


def test_a_score_is_the_sum_over_layers_of_the_querys_product_with_the_rebuilt_gradient():
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (3, 4, 2), "b": (1, 1, 1), "c": (5, 2, 2)}
    factors = {
        layer: GradientFactors(torch.randn(7, d1, c, generator=generator), torch.randn(7, d2, c, generator=generator))
        for layer, (d1, d2, c) in shapes.items()
    }
    queries = {layer: torch.randn(2, d1 * d2, generator=generator) for layer, (d1, d2, _) in shapes.items()}
    expected = torch.zeros(2, 7, dtype=torch.float64)
    for layer, (d1, d2, c) in shapes.items():
        for q in range(2):
            m = queries[layer][q].double().reshape(d1, d2)
            for i in range(7):
                for b in range(c):
                    u, v = factors[layer].u[i, :, b].double(), factors[layer].v[i, :, b].double()
                    expected[q, i] += u @ m @ v
    # Layers are matched by name, not by order.
    found = block_scores(queries, dict(reversed(factors.items())))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cached_numbers", [1, 1 << 20])
@pytest.mark.parametrize(("d1", "d2"), [(3, 7), (7, 3), (4, 4), (1, 1)])
@pytest.mark.parametrize("n_queries", [0, 1, 5, 40])
@pytest.mark.parametrize("n", [0, 1, 6])
@pytest.mark.parametrize("c", [1, 3])
def test_factors_score_as_their_products_do_however_many_queries(monkeypatch, n, c, n_queries, d1, d2, cached_numbers):
    monkeypatch.setattr(scoring, "_CACHED_NUMBERS", cached_numbers)
    generator = torch.Generator().manual_seed(0)
    factors = GradientFactors(torch.randn(n, d1, c, generator=generator), torch.randn(n, d2, c, generator=generator))
    queries = torch.randn(n_queries, d1 * d2, generator=generator)
    expected = queries.double() @ torch.einsum("nic,njc->nij", factors.u.double(), factors.v.double()).flatten(1).mT
    found = block_scores({"layer": queries}, {"layer": factors})
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_queries_and_factors_of_different_layers_are_refused_by_name():
    factors = GradientFactors(torch.ones(1, 2, 1), torch.ones(1, 2, 1))
    with pytest.raises(ValueError, match="different layers, for instance 'b'"):
        block_scores({"a": torch.ones(1, 4)}, {"a": factors, "b": factors})


# --- Extremes -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(scores=SCORE_ROWS, k=st.integers(0, 8), data=st.data())
def test_extremes_are_the_sorted_ones_and_ties_go_to_the_earlier_position_wherever_the_stream_is_cut(scores, k, data):
    found = stream(scores, k, data.draw(st.permutations(cut_at(data, scores.shape[1])), label="blocks"))
    for q, row in enumerate(scores.tolist()):
        assert found.highest_positions[q].tolist() == extremes(row, k, highest=True)
        assert found.lowest_positions[q].tolist() == extremes(row, k, highest=False)
        assert found.highest[q].tolist() == [row[i] for i in found.highest_positions[q].tolist()]
        assert found.lowest[q].tolist() == [row[i] for i in found.lowest_positions[q].tolist()]


def test_fewer_scores_than_k_are_all_kept_in_both_orders():
    found = stream(torch.tensor([[1.0, 3.0, 2.0]]), 10, [(0, 3)])
    assert found.highest.tolist() == [[3.0, 2.0, 1.0]]
    assert found.lowest.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_scores_that_are_no_numbers_hide_no_others_wherever_the_stream_is_cut(cut):
    scores = torch.tensor([[1.0, math.nan, 3.0, 9.0, -4.0, math.inf], [math.nan, math.nan, math.nan, 2.0, 1.0, 5.0]])
    whole = stream(scores, 3, [(0, 6)])
    parts = stream(scores, 3, [(first, min(first + cut, 6)) for first in range(0, 6, cut)])
    assert torch.equal(whole.highest_positions, parts.highest_positions)
    assert torch.equal(whole.lowest_positions, parts.lowest_positions)


def test_extremes_keep_the_type_of_the_scores():
    found = stream(torch.tensor([[1.0, 3.0]], dtype=torch.float64), 1, [(0, 1), (1, 2)])
    assert found.highest.dtype == found.lowest.dtype == torch.float64
    assert found.highest_positions.dtype == torch.int64


# --- Moments --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(scores=SCORE_ROWS, data=st.data())
def test_moments_are_those_of_all_scores_wherever_the_stream_is_cut(scores, data):
    moments = ScoreMoments.empty(scores.shape[0])
    for first, last in cut_at(data, scores.shape[1]):
        moments = moments.update(scores[:, first:last])
    s = scores.double().numpy()
    assert moments.count == s.shape[1]
    np.testing.assert_allclose(moments.magnitude.numpy(), np.abs(s).sum(1))
    np.testing.assert_allclose(moments.positive.numpy(), s.clip(min=0).sum(1))
    if s.size:
        np.testing.assert_allclose(moments.mean.numpy(), s.mean(1))
        np.testing.assert_allclose(moments.std.numpy(), s.std(1), atol=1e-7)


def test_moments_of_two_parts_are_joined_to_those_of_all_scores():
    scores = torch.tensor([[3.0, -2.0, 5.0, -7.0, 0.5], [1.0, 4.0, -1.0, 2.0, -6.0]])
    whole = ScoreMoments.empty(2).update(scores)
    joined = ScoreMoments.empty(2).update(scores[:, :2]).joined(ScoreMoments.empty(2).update(scores[:, 2:]))
    assert joined.count == whole.count == 5
    for sums in ("total", "squares", "magnitude", "positive"):
        torch.testing.assert_close(getattr(joined, sums), getattr(whole, sums), rtol=1e-12, atol=0)


def test_moments_of_no_scores_are_zero():
    moments = ScoreMoments.empty(2)
    assert moments.mean.tolist() == moments.std.tolist() == [0.0, 0.0]


def test_equal_scores_have_no_spread_where_rounding_makes_the_variance_negative():
    moments = ScoreMoments.empty(1).update(torch.full((1, 9), -4.44, dtype=torch.float64))
    assert float(moments.squares / 9 - moments.mean.square()) < 0
    assert moments.std.tolist() == [0.0]


def test_moments_are_summed_in_fp64():
    moments = ScoreMoments.empty(1)
    for _ in range(3):
        moments = moments.update(torch.tensor([[1e8, 1.0, -1e8]], dtype=torch.float32))
    assert moments.total.tolist() == [3.0]


@settings(deadline=None, max_examples=60)
@given(scores=SCORE_ROWS, k=st.integers(0, 8))
def test_the_share_of_positive_influence_in_the_top_k_is_numpys_and_lies_between_zero_and_one(scores, k):
    share = share_of_positive(
        stream(scores, 8, [(0, scores.shape[1])]), ScoreMoments.empty(scores.shape[0]).update(scores), k
    )
    for found, row in zip(share.tolist(), scores.double().numpy(), strict=True):
        positive = row.clip(min=0)
        expected = np.sort(positive)[::-1][:k].sum() / positive.sum() if positive.any() else 0.0
        assert found == pytest.approx(expected)
        assert 0.0 <= found <= 1.0


def test_a_query_without_positive_influence_has_share_zero():
    scores = torch.tensor([[-1.0, -2.0], [0.0, 0.0]])
    share = share_of_positive(stream(scores, 2, [(0, 2)]), ScoreMoments.empty(2).update(scores), 1)
    assert share.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("rank", [1, 3, 6, 50])
def test_queries_at_a_rank_score_as_their_dense_products_do(rank):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(4, 6, 9, generator=generator) * 0.5 ** torch.arange(9)
    factors = GradientFactors(torch.randn(7, 6, 2, generator=generator), torch.randn(7, 9, 2, generator=generator))
    kept, lost = low_rank_queries(queries, rank)
    found = block_scores({"layer": kept}, {"layer": factors})
    torch.testing.assert_close(found, block_scores({"layer": kept.dense()}, {"layer": factors}), rtol=1e-4, atol=1e-4)
    expected = (queries - kept.dense().unflatten(1, (6, 9))).double().square().sum((1, 2))
    torch.testing.assert_close(lost, expected, rtol=1e-3, atol=1e-5)
    best = torch.linalg.svdvals(queries)[:, rank:].square().sum(1).double()
    assert bool((lost <= 1.3 * best + 1e-5).all())
