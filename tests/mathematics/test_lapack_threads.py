"""LAPACK has one thread for small matrices, and the products after it as many as before."""

from collections.abc import Iterator

import pytest
import torch

from lorif_assets.mathematics.lapack_threads import lapack_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_many_small_matrices_have_one_thread_and_large_ones_all() -> None:
    with lapack_threads(torch.empty(64, 128, 72)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with lapack_threads(torch.empty(2, 1_024, 1_024)):
        assert torch.get_num_threads() == 2


def test_a_failure_leaves_the_threads_as_they_were() -> None:
    with pytest.raises(ZeroDivisionError), lapack_threads(torch.empty(3, 4, 4)):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
