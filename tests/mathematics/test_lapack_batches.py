"""LAPACK on batches of small matrices: the same results on any number of threads, whose number it leaves as it was."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from lorif_assets.mathematics import lapack_batches
from lorif_assets.mathematics.lapack_batches import eigenvalues, eigenvectors, orthonormal, triangular


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def matrices(n: int, a: int, b: int) -> Tensor:
    return torch.randn(n, a, b, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_each_matrix_gives_what_it_gives_alone(threads: int, n: int) -> None:
    x = matrices(n, 12, 5)
    gram = x.mT @ x
    for found, work, given in (
        (orthonormal(x), lambda one: torch.linalg.qr(one).Q, x),
        (eigenvectors(gram), lambda one: torch.linalg.eigh(one).eigenvectors, gram),
        (eigenvalues(gram), torch.linalg.eigvalsh, gram),
        (triangular(x), lambda one: torch.linalg.qr(one).R, x),
    ):
        # Up to rounding, and to the signs, which rounding may turn.
        alone = torch.cat([work(given[:0]), *(work(one) for one in given.split(1))])
        torch.testing.assert_close(found.abs(), alone.abs())
    assert torch.get_num_threads() == threads


def test_no_matrix_is_worked_on_by_several_threads(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    seen = []

    def qr(x: Tensor) -> object:
        seen.append((torch.get_num_threads(), len(x)))
        return torch.return_types.linalg_qr((x, x))

    monkeypatch.setattr(torch.linalg, "qr", qr)
    orthonormal(matrices(7, 4, 4))
    assert {one for one, _ in seen} == {1}
    assert sorted(n for _, n in seen) == {1: [7], 2: [3, 4], 3: [1, 3, 3]}[threads]


@pytest.mark.parametrize(("n", "constant"), [(7, "_SMALL"), (1, "_SMALL_ALONE")])
def test_large_matrices_keep_all_threads(monkeypatch: pytest.MonkeyPatch, threads: int, n: int, constant: str) -> None:
    monkeypatch.setattr(lapack_batches, constant, 3)
    seen = []
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda x: seen.append(torch.get_num_threads()) or x[:, 0])
    eigenvalues(matrices(n, 4, 4))
    assert seen == [threads]


@pytest.mark.parametrize("function", [eigenvalues, eigenvectors, orthonormal, triangular])
def test_the_number_of_threads_is_as_it_was_after_a_failure(function: Callable[[Tensor], Tensor], threads: int) -> None:
    with pytest.raises(RuntimeError):
        function(torch.zeros(3, 4, 4, dtype=torch.int64))
    assert torch.get_num_threads() == threads
