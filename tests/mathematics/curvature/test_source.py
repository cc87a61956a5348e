"""SOURCE along the axes of K-FAC's bases against dense FP64 matrices, and against gradient descent itself."""

import pytest
import torch
from torch import Tensor

from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KroneckerPreconditioner
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.curvature.source import Segment, SegmentPreconditioner
from tests.mathematics.curvature.test_ekfac import D1, D2, covariances, random_data

TIMES = (4.0, 0.5, 20.0)


def bases_and_eigenvalues(seed: int, whitening_rank: int | None = None) -> tuple[KfacBases, Tensor]:
    x, dy, train = random_data(seed)
    bases = covariances(x, dy).bases(0.1, whitening_rank)
    return bases, FisherDiagonal.of(bases.rotate(train)).eigenvalues


def dense(bases: KfacBases, eigenvalues: Tensor) -> Tensor:
    """H as a matrix [D, D], FP64."""
    q = torch.kron(bases.q_in.double(), bases.q_out.double())
    return q @ torch.diag(eigenvalues.double().flatten()) @ q.mT


def by_matrices(run: list[tuple[KfacBases, Tensor]], at: int, query: Tensor) -> Tensor:
    """F(H_l) exp(-t H_{l+1}) ... exp(-t H_L) g, by matrix functions in FP64."""
    carried = query.double().flatten()
    for (bases, values), time in reversed(list(zip(run, TIMES, strict=True))[at + 1 :]):
        carried = torch.linalg.matrix_exp(-time / values.mean() * dense(bases, values)) @ carried
    h = dense(*run[at])
    mean = run[at][1].mean().double()
    # F(x) = integral of exp(-s x) over s from 0 to t.
    values, vectors = torch.linalg.eigh(h)
    time = TIMES[at] / mean
    response = torch.where(values.abs() > 1e-9, (1 - torch.exp(-time * values)) / values, time)
    return vectors @ (response * (vectors.mT @ carried))


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("whitening_rank", [None, 2])
def test_segments_are_those_of_dense_matrices_whatever_the_whitening(at: int, whitening_rank: int | None) -> None:
    run = [bases_and_eigenvalues(seed, whitening_rank) for seed in range(3)]
    segments = [Segment(*one, time) for one, time in zip(run, TIMES, strict=True)]
    ready = SegmentPreconditioner(segments[at], segments[at + 1 :])
    queries, train = random_data(7)[2], random_data(8)[2]
    expected = torch.stack([by_matrices(run, at, query) for query in queries])
    found = ready.inverse(queries.flatten(1)).double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    scores = ready.apply(queries.flatten(1)).double() @ run[at][0].whitened(train).flatten(1).double().mT
    of_dense = expected @ train.double().flatten(1).mT
    torch.testing.assert_close(scores, of_dense, rtol=1e-3, atol=1e-4 * float(of_dense.abs().max()))


def test_a_long_segment_leaves_the_inverse_and_forgets_what_was_before() -> None:
    run = [bases_and_eigenvalues(seed) for seed in range(2)]
    values = [one[1] + one[1].mean() for one in run]
    first, last = (Segment(run[at][0], values[at], 1e4) for at in range(2))
    queries = random_data(7)[2].flatten(1)
    whole = KroneckerPreconditioner(run[1][0], values[1], 0.0).inverse(queries)
    torch.testing.assert_close(SegmentPreconditioner(last, []).inverse(queries), whole, rtol=1e-4, atol=1e-5)
    assert float(SegmentPreconditioner(first, [last]).inverse(queries).abs().max()) < 1e-12


def test_a_short_segment_is_plain_gradients_times_its_time() -> None:
    bases, values = bases_and_eigenvalues(0)
    queries = random_data(7)[2].flatten(1)
    found = SegmentPreconditioner(Segment(bases, values, 1e-5), []).inverse(queries)
    torch.testing.assert_close(found, 1e-5 / float(values.mean()) * queries, rtol=1e-3, atol=1e-9)


def test_scores_are_what_descent_on_two_quadratic_segments_does_to_the_query() -> None:
    """Upweighting one example's linear loss by a little, on H_1 and then on H_2, moves the weights by what SOURCE says."""
    run = [bases_and_eigenvalues(seed) for seed in range(2)]
    times = (2.0, 3.0)
    query, examples = random_data(7)[2][0].double(), random_data(8)[2][:2].double()
    weights = torch.zeros(D1 * D2, dtype=torch.float64)
    steps = 20_000
    expected = 0.0
    segments = []
    for (bases, values), time, example in zip(run, times, examples, strict=True):
        h, rate = dense(bases, values), time / float(values.mean()) / steps
        for _ in range(steps):
            weights = weights - rate * (h @ weights + example.flatten())
        segments.append(Segment(bases, values, time))
    for at, example in enumerate(examples):
        ready = SegmentPreconditioner(segments[at], segments[at + 1 :])
        expected += float(ready.inverse(query.float().flatten()[None]).double()[0] @ example.flatten())
    assert float(-query.flatten() @ weights) == pytest.approx(expected, rel=2e-3)


def test_a_layer_without_any_gradient_scores_nothing() -> None:
    bases, values = bases_and_eigenvalues(0)
    silent = Segment(bases, values * 0, 5.0)
    queries = random_data(7)[2].flatten(1)
    assert not SegmentPreconditioner(silent, [silent]).apply(queries).any()
    assert SegmentPreconditioner(silent, []).norm_weight == 0.0
