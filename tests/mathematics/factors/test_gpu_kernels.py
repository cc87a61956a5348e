"""Kernels of a GPU, in Triton's interpreter on a CPU: as LAPACK's, whatever the matrix; and what stands in for them."""

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from lorif_assets.mathematics.factors import device_kernels, orthonormal_columns
from lorif_assets.mathematics.factors.device_kernels import kernels_of
from lorif_assets.mathematics.factors.jacobi_eigenpairs import jacobi_eigenpairs

INTERPRETED = """
import torch
from lorif_assets.mathematics.factors import device_kernels, jacobi_eigenpairs, orthonormal_columns
from lorif_assets.mathematics.factors.gpu_kernels import orthogonalised, orthonormalise
from lorif_assets.mathematics.factors.low_rank import low_rank_factors

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
tall = torch.randn(6, 24, 8, generator=generator, dtype=torch.float64)
tall[1] *= 0.5 ** torch.arange(8)
tall[2, :, 4:] = 0
tall[3] = 0
tall[4] = torch.eye(24, 8)
gram = tall.mT @ tall
values, vectors = orthogonalised(gram)
torch.testing.assert_close(values.sort(descending=True).values, torch.linalg.eigvalsh(gram).flip(1), rtol=1e-9, atol=1e-9)
torch.testing.assert_close(vectors.mT @ vectors, torch.eye(8).double().expand(6, -1, -1), rtol=0, atol=1e-12)
torch.testing.assert_close(vectors * values.unsqueeze(1), gram @ vectors, rtol=0, atol=1e-8)

for scale in (1e-30, 1.0, 1e30):
    columns = (tall[:2].float() * scale).contiguous()
    assert orthonormalise(columns, 1e-6)
    torch.testing.assert_close(columns.mT @ columns, torch.eye(8).expand(2, -1, -1), rtol=0, atol=2e-6)
    spans = columns.double() @ columns.double().mT
    expected = torch.linalg.qr(tall[:2]).Q
    torch.testing.assert_close(spans, expected @ expected.mT, rtol=0, atol=1e-5)
assert not orthonormalise(torch.zeros(1, 4096, 64), 1e-6)
# Numbers below the range of FP32 have few digits, but are numbers.
columns = (tall[:2].float() * 1e-42).contiguous()
assert orthonormalise(columns, 1e-6)
torch.testing.assert_close(columns.mT @ columns, torch.eye(8).expand(2, -1, -1), rtol=0, atol=2e-6)

made = device_kernels.DeviceKernels(orthonormalise, orthogonalised)
gradients = torch.randn(3, 20, 26, generator=generator) * 0.7 ** torch.arange(26)
gradients[2] = 0
by_operations = low_rank_factors(gradients, 3, rounds=4)
for module in (jacobi_eigenpairs, orthonormal_columns):
    module.kernels_of = lambda _device: made
by_kernels = low_rank_factors(gradients, 3, rounds=4)
torch.testing.assert_close(by_kernels.dense(), by_operations.dense(), rtol=0, atol=2e-4)
torch.testing.assert_close(by_kernels.v.mT @ by_kernels.v, torch.eye(3).expand(3, -1, -1), rtol=0, atol=5e-6)
print("as LAPACK")
"""


def test_the_kernels_find_what_lapack_finds() -> None:
    pytest.importorskip("triton", reason="torch for the CPU comes without Triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", INTERPRETED]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "as LAPACK", found.stderr


def test_a_device_without_a_compiler_says_so_and_takes_operations(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "lorif_assets.mathematics.factors.gpu_kernels", raising=False)
    with caplog.at_level(logging.WARNING, device_kernels.__name__):
        assert kernels_of.__wrapped__(torch.device("cuda:0")) is None
    (said,) = caplog.messages
    assert "cuda:0" in said
    assert "C compiler" in said


def test_a_device_whose_memory_is_full_at_the_trial_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is halved then, as for any other shortage, and the next one finds the kernels."""
    is_full = [True, False]

    def orthonormalise(_x: torch.Tensor, _smallest: float) -> bool:
        if is_full.pop(0):
            raise torch.OutOfMemoryError
        return True

    card, eye = torch.device("cuda:7"), torch.eye(2)
    made = SimpleNamespace(orthonormalise=orthonormalise, orthogonalised=lambda a: (a, a))
    monkeypatch.setitem(sys.modules, "lorif_assets.mathematics.factors.gpu_kernels", made)
    monkeypatch.setattr(torch, "eye", lambda *_, **__: eye)
    with pytest.raises(torch.OutOfMemoryError):
        kernels_of(card)
    found = kernels_of(card)
    kernels_of.cache_clear()
    assert found is not None


def test_what_does_not_lie_row_by_row_is_left_to_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel goes by addresses, and would make others orthonormal."""
    made = device_kernels.DeviceKernels(lambda _x, _smallest: pytest.fail("taken"), lambda _a: pytest.fail("taken"))
    monkeypatch.setattr(orthonormal_columns, "kernels_of", lambda _device: made)
    x = torch.randn(3, 6, 20, generator=torch.Generator().manual_seed(2)).mT
    (found,) = orthonormal_columns.orthonormal_columns([x + 0 * x], [torch.eye(20, 6)])
    torch.testing.assert_close(found.mT @ found, torch.eye(6).expand(3, -1, -1), rtol=0, atol=5e-6)


@pytest.mark.parametrize("width", [3, 7])
def test_an_axis_that_fills_a_matrix_up_is_never_taken_for_one_of_its_own(width: int) -> None:
    """Of a matrix of low rank, rounding leaves eigenvalues below zero, and they can be large."""
    x = torch.randn(4, 1, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e30
    values, vectors = jacobi_eigenpairs(x.mT @ x)
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(width).double().expand(4, -1, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(values[:, 0], x.square().sum((1, 2)), rtol=1e-12, atol=0)
