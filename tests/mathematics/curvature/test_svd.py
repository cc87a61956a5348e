"""The curvature state: linear in the data, whatever the edits, and eigenpairs that never claim more than there is."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorif_assets.mathematics.curvature.svd import CurvatureState, Spectrum, random_basis
from lorif_assets.mathematics.factors import low_rank
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors
from tests.mathematics.references import eigenpairs, gradient_matrix, relative_error

D1, D2 = 3, 4
D = D1 * D2


def random_factors(
    n: int, d1: int = D1, d2: int = D2, c: int = 2, seed: int = 0, decay: float = 0.0
) -> GradientFactors:
    """Factors of random gradients; with decay, coordinates of u and v shrink, and so does the spectrum."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (
        torch.randn(n, d, c, generator=generator) * torch.arange(1, d + 1).pow(-decay).unsqueeze(1) for d in (d1, d2)
    )
    return GradientFactors(u, v)


def chosen(factors: GradientFactors, indices: Iterable[int]) -> GradientFactors:
    at = torch.tensor(list(indices), dtype=torch.long)
    return GradientFactors(factors.u[at], factors.v[at])


def state_of(factors: GradientFactors, k: int, seed: int = 0) -> CurvatureState:
    return CurvatureState.empty(random_basis(factors.u.shape[1] * factors.v.shape[1], k, seed)).add(factors)


def assert_same_state(found: CurvatureState, expected: CurvatureState, held: float) -> None:
    """Equal up to the rounding of what the state has ever held (the largest trace)."""
    assert found.count == expected.count
    assert abs(found.trace - expected.trace) <= 1e-9 * held
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=2e-6 * held)


POOL = random_factors(10, decay=1.0)
POOL_TRACE = float(POOL.squared_norms().sum())

degenerate_factors = {
    "decaying": random_factors(30, decay=1.0),
    "rank-deficient": GradientFactors(
        random_factors(30, c=1).u * torch.tensor([[1.0], [0.0], [0.0]]), random_factors(30, c=1).v
    ),
    "fewer examples than the basis has columns": random_factors(2),
    "one example many times": chosen(random_factors(1), [0] * 9),
    "some zero gradients": GradientFactors(
        random_factors(8).u * (torch.arange(8) % 2).reshape(-1, 1, 1), random_factors(8).v
    ),
    "only zero gradients": low_rank_factors(torch.zeros(5, D1, D2), 2),
    "no examples": random_factors(0),
    "1 x 1": random_factors(6, 1, 1, 1),
    "1 x n": random_factors(6, 1, 5, 1),
    "huge": GradientFactors(random_factors(6).u * 1e6, random_factors(6).v),
    "tiny": GradientFactors(random_factors(6).u * 1e-6, random_factors(6).v),
}


# --- The state ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(n=st.integers(0, 9), d1=st.integers(1, 4), d2=st.integers(1, 4), k=st.integers(0, 18), seed=st.integers(0, 99))
def test_the_state_holds_the_curvature_times_the_basis_its_trace_and_the_count(n, d1, d2, k, seed):
    factors = random_factors(n, d1, d2, seed=seed)
    state = state_of(factors, k, seed)
    g = gradient_matrix(factors)
    assert state.basis.shape == state.image.shape == (d1 * d2, min(k, d1 * d2))
    assert relative_error(state.image, g.T @ g @ state.basis.double()) < 1e-5
    assert state.trace == pytest.approx(float(g.square().sum()), rel=1e-9)
    assert state.count == n


@settings(deadline=None, max_examples=25)
@given(edits=st.lists(st.sets(st.integers(0, 9), min_size=1), max_size=8), k=st.sampled_from([3, 6, D]))
def test_after_any_edits_the_state_is_the_one_from_scratch(edits, k):
    """Each edit puts in the examples that are out, and takes out those that are in."""
    state, inside = CurvatureState.empty(random_basis(D, k, 0)), set()
    for edit in edits:
        state = state.remove(chosen(POOL, edit & inside)).add(chosen(POOL, edit - inside))
        inside ^= edit
    assert_same_state(state, state_of(chosen(POOL, sorted(inside)), k), POOL_TRACE)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(10)), cuts=st.lists(st.integers(0, 10), max_size=4), k=st.sampled_from([3, D]))
def test_order_and_shard_boundaries_do_not_matter_whether_shards_are_added_or_merged(order, cuts, k):
    edges = [0, *sorted(cuts), 10]
    shards = [chosen(POOL, order[a:b]) for a, b in pairwise(edges)]
    added = merged = CurvatureState.empty(random_basis(D, k, 0))
    for shard in shards:
        added, merged = added.add(shard), merged.merge(state_of(shard, k))
    for state in (added, merged):
        assert_same_state(state, state_of(POOL, k), POOL_TRACE)


def test_replacing_an_example_gives_the_state_of_the_final_data():
    replaced = state_of(POOL, 5).remove(chosen(POOL, [3])).add(random_factors(1, seed=8))
    final = [chosen(POOL, [0, 1, 2, 4, 5, 6, 7, 8, 9]), random_factors(1, seed=8)]
    expected = state_of(GradientFactors(torch.cat([f.u for f in final]), torch.cat([f.v for f in final])), 5)
    assert_same_state(replaced, expected, POOL_TRACE + expected.trace)


@settings(deadline=None, max_examples=25)
@given(
    held=st.sets(st.integers(0, 9)),
    kept=st.sets(st.integers(0, 9)),
    added=st.lists(st.integers(0, 9), max_size=12),
    block=st.integers(1, 20),
)
def test_an_exchange_gives_the_state_of_the_final_data_wherever_blocks_are_cut(held, kept, added, block):
    state = state_of(chosen(POOL, held), 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_rank, "_CPU_BLOCK_NUMBERS", block * D)
        found = state.exchange(chosen(POOL, held - kept), chosen(POOL, added))
    final = state_of(chosen(POOL, [*(held & kept), *added]), 5)
    assert_same_state(found, final, 2 * POOL_TRACE)
    if not held & kept:
        # Nothing of what was there is left, not even its rounding.
        torch.testing.assert_close(found.image, final.image, rtol=1e-5, atol=1e-6)


def test_an_exchange_leaves_the_old_state_and_refuses_to_remove_more_than_it_holds():
    state = state_of(chosen(POOL, [0, 1]), 3)
    image = state.image.clone()
    state.exchange(chosen(POOL, [0]), POOL)
    assert torch.equal(state.image, image)
    with pytest.raises(ValueError, match="10 examples cannot be removed from a state of 2"):
        state.exchange(POOL, chosen(POOL, [0]))


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(10)), cut=st.integers(1, 9))
def test_removing_everything_leaves_the_empty_state(order, cut):
    state = state_of(POOL, 5).remove(chosen(POOL, order[:cut])).remove(chosen(POOL, order[cut:]))
    assert (state.count, state.trace) == (0, 0.0)
    assert torch.equal(state.image, torch.zeros(D, 5))
    assert torch.equal(state.basis, random_basis(D, 5, 0))


def test_what_is_left_by_rounding_is_no_negative_trace():
    state = state_of(random_factors(1, decay=0.3), 5).add(low_rank_factors(torch.zeros(1, D1, D2), 1))
    larger = random_factors(1, decay=0.3)
    assert state.remove(GradientFactors(larger.u * (1 + 1e-7), larger.v)).trace == 0.0


def test_a_change_returns_a_new_state_and_leaves_the_old_one():
    state = state_of(POOL, 5)
    image = state.image.clone()
    state.add(POOL).remove(POOL).refined()
    assert torch.equal(state.image, image)
    assert state.count == 10


def test_removing_more_examples_than_are_held_is_refused():
    with pytest.raises(ValueError, match="10 examples cannot be removed from a state of 2"):
        state_of(chosen(POOL, [0, 1]), 3).remove(POOL)


@pytest.mark.parametrize("other", [random_basis(D, 4, 1), random_basis(D, 5, 0), random_basis(D - 1, 4, 0)])
def test_states_in_different_bases_refuse_to_merge(other):
    state = CurvatureState.empty(random_basis(D, 4, 0))
    with pytest.raises(ValueError, match="add only in the same basis"):
        state.merge(CurvatureState.empty(other))


def test_large_additions_go_through_memory_in_blocks(monkeypatch):
    expected = state_of(POOL, 5)
    monkeypatch.setattr(low_rank, "_BLOCK_NUMBERS", 3 * D)
    assert_same_state(state_of(POOL, 5), expected, POOL_TRACE)
    monkeypatch.setattr(low_rank, "_BLOCK_NUMBERS", 1)
    assert_same_state(state_of(POOL, 5), expected, POOL_TRACE)


# --- The basis ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dimension", "k"), [(12, 0), (12, 1), (12, 5), (12, 11), (1, 1)])
def test_a_random_basis_is_orthonormal_and_depends_on_its_seed_alone(dimension, k):
    basis = random_basis(dimension, k, 3)
    assert basis.shape == (dimension, k)
    torch.testing.assert_close(basis.T @ basis, torch.eye(k), rtol=0, atol=1e-6)
    assert torch.equal(basis, random_basis(dimension, k, 3))
    assert k in (0, dimension) or not torch.equal(basis, random_basis(dimension, k, 4))


@pytest.mark.parametrize("k", [12, 40])
def test_a_basis_of_all_dimensions_is_the_identity(k):
    assert torch.equal(random_basis(12, k, 3), torch.eye(12))


# --- The spectrum ---------------------------------------------------------------------------------------------------


def leading_energy(v: Tensor, g: Tensor) -> float:
    """tr(V^T H V): what a subspace captures."""
    return float((g @ v.double()).square().sum())


@pytest.mark.parametrize("k", [2, 7, 100])
@pytest.mark.parametrize("case", degenerate_factors)
def test_eigenvectors_are_orthonormal_and_eigenvalues_sorted_nonnegative_and_never_above_the_true_ones(case, k):
    factors = degenerate_factors[case]
    state = state_of(factors, k)
    width = state.basis.shape[1]
    spectrum = state.spectrum(width)
    true, _ = eigenpairs(gradient_matrix(factors))
    w, v = spectrum.eigenvalues, spectrum.vectors
    assert (len(w), v.shape) == (width, (len(true), width))
    torch.testing.assert_close(v.T @ v, torch.eye(width), rtol=0, atol=1e-5)
    assert bool((w >= 0).all())
    assert torch.equal(w, w.sort(descending=True).values)
    assert bool((w <= true[:width] + 1e-5 * state.trace).all())
    assert spectrum.trace == state.trace
    assert float(w.sum()) <= state.trace * (1 + 1e-5)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 20), k=st.integers(1, D), decay=st.floats(0, 3), seed=st.integers(0, 99))
def test_no_eigenvalue_exceeds_the_true_one_of_its_rank(n, k, decay, seed):
    factors = random_factors(n, seed=seed, decay=decay)
    true, _ = eigenpairs(gradient_matrix(factors))
    w = state_of(factors, k, seed).spectrum(k).eigenvalues
    assert bool((w <= true[:k] + 1e-5 * true[0]).all())


@pytest.mark.parametrize("case", degenerate_factors)
def test_a_full_basis_gives_the_exact_eigenpairs(case):
    factors = degenerate_factors[case]
    g = gradient_matrix(factors)
    true, _ = eigenpairs(g)
    spectrum = state_of(factors, g.shape[1]).spectrum(g.shape[1])
    scale = float(true[0])
    torch.testing.assert_close(spectrum.eigenvalues, true, rtol=0, atol=1e-5 * scale)
    v = spectrum.vectors.double()
    torch.testing.assert_close(g.T @ g @ v, v * spectrum.eigenvalues, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_basis_wider_than_the_rank_of_the_data_gives_the_exact_eigenpairs_in_one_pass(rank):
    factors = random_factors(rank, c=1)
    true, vectors = eigenpairs(gradient_matrix(factors))
    spectrum = state_of(factors, rank + 2).spectrum(rank)
    torch.testing.assert_close(spectrum.eigenvalues, true[:rank], rtol=0, atol=1e-5 * float(true[0]))
    overlap = (vectors[:, :rank].T @ spectrum.vectors.double()).abs()
    torch.testing.assert_close(overlap, torch.eye(rank, dtype=torch.float64), rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 20), k=st.integers(1, D), decay=st.floats(0, 3), seed=st.integers(0, 99))
def test_a_refinement_never_lowers_an_eigenvalue(n, k, decay, seed):
    """A subspace iteration of a positive semi-definite matrix raises every Ritz value."""
    factors = random_factors(n, seed=seed, decay=decay)
    state = state_of(factors, k, seed)
    refined = state.refined().add(factors)
    before, after = state.spectrum(k), refined.spectrum(k)
    assert (refined.count, refined.trace) == (n, state.trace)
    assert bool((after.eigenvalues >= before.eigenvalues - 1e-5 * state.trace).all())


def test_refinements_converge_to_the_leading_eigenvectors_of_a_decaying_spectrum():
    factors = random_factors(200, 8, 8, decay=1.0)
    g = gradient_matrix(factors)
    best = float(eigenpairs(g)[0][:8].sum())
    state, missing = state_of(factors, 12), []
    for _ in range(4):
        missing.append(1 - leading_energy(state.spectrum(8).vectors, g) / best)
        state = state.refined().add(factors)
    assert missing[0] > 0.02
    assert all(later < earlier / 2 for earlier, later in pairwise(missing))
    assert missing[-1] < 1e-3


def test_later_data_go_on_from_the_refined_basis():
    refined = state_of(POOL, 5).refined()
    first, second = chosen(POOL, range(6)), chosen(POOL, range(6, 10))
    assert_same_state(refined.add(first).add(second), refined.add(POOL), POOL_TRACE)


@pytest.mark.parametrize("case", degenerate_factors)
def test_a_refined_basis_is_orthonormal_whatever_the_data(case):
    basis = state_of(degenerate_factors[case], 3).refined().basis
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), rtol=0, atol=1e-5)


def test_extra_eigenvalues_come_without_vectors_as_far_as_the_basis_has_them():
    spectrum = state_of(POOL, 7).spectrum(4, n_extra=2)
    assert (len(spectrum.eigenvalues), spectrum.vectors.shape) == (6, (D, 4))
    spectrum = state_of(POOL, 7).spectrum(4, n_extra=10)
    assert (len(spectrum.eigenvalues), spectrum.vectors.shape) == (7, (D, 4))
    spectrum = state_of(POOL, 7).spectrum(40, n_extra=10)
    assert (len(spectrum.eigenvalues), spectrum.vectors.shape) == (7, (D, 7))
    empty = CurvatureState.empty(random_basis(D, 7, 0)).spectrum(4, n_extra=2)
    assert (len(empty.eigenvalues), empty.vectors.shape) == (6, (D, 4))


def test_rank_zero_has_no_eigenpairs_and_keeps_the_trace():
    for k in (0, 5):
        spectrum = state_of(POOL, k).spectrum(0)
        assert (len(spectrum.eigenvalues), spectrum.vectors.shape) == (0, (D, 0))
        assert spectrum.trace == pytest.approx(POOL_TRACE)


def test_an_image_that_rounding_made_slightly_indefinite_still_gives_its_eigenpairs():
    """As removals leave it: FP32 sums keep the rounding of the largest curvature that the state ever held."""
    factors = random_factors(3, c=1)
    true, _ = eigenpairs(gradient_matrix(factors))
    state = state_of(factors, 7)
    slip = 1e-5 * float(true[0])
    spectrum = replace(state, image=state.image - slip * state.basis).spectrum(7)
    torch.testing.assert_close(spectrum.eigenvalues, true[:7], rtol=0, atol=20 * slip)
    torch.testing.assert_close(spectrum.vectors.T @ spectrum.vectors, torch.eye(7), rtol=0, atol=1e-5)


def test_the_rounding_that_a_removed_giant_leaves_behind_is_no_obstacle():
    giant = random_factors(1, seed=9)
    giant = GradientFactors(giant.u * 1e4, giant.v)
    spectrum = state_of(POOL, 7).add(giant).remove(giant).spectrum(5)
    assert bool((spectrum.eigenvalues >= 0).all())
    torch.testing.assert_close(spectrum.vectors.T @ spectrum.vectors, torch.eye(5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_a_curvature_that_is_not_finite_is_refused_rather_than_iterated_on(value):
    factors = chosen(POOL, range(10))
    factors.u[4, 0, 0] = value
    with pytest.raises(ValueError, match="not finite"):
        state_of(factors, 5).spectrum(3)


def test_captured_energy_is_the_share_of_the_trace_in_the_kept_eigenpairs():
    spectrum = Spectrum(torch.tensor([6.0, 3.0, 1.0]), torch.eye(5)[:, :2], 20.0)
    assert spectrum.captured_energy == pytest.approx(0.45)
    assert Spectrum(torch.tensor([6.0]), torch.eye(5)[:, :1], 5.9999).captured_energy == 1.0
    assert Spectrum(torch.zeros(2), torch.eye(5)[:, :2], 0.0).captured_energy == 0.0
