"""Squared singular values are those of the gradients, whichever matrix they are found from."""

import pytest
import torch
from torch import Tensor

from lorif_assets.mathematics.curvature.whitened_spectra import (
    is_cheaper_from_tokens,
    squared_singular_values,
    squared_singular_values_from_tokens,
)
from lorif_assets.mathematics.factors.token_gradients import TokenGradients

CPU = torch.device("cpu")


@pytest.mark.parametrize("k", [1, 3, 8, 30])
def test_singular_values_are_those_of_the_gradients(k):
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(4, 40, 30, generator=generator) * 0.8 ** torch.arange(30)
    expected = torch.linalg.svdvals(gradients.double())[:, :k].square()
    torch.testing.assert_close(squared_singular_values(gradients, k), expected, rtol=0.02, atol=1e-4)


def tokens(n: int, t: int, d1: int, d2: int) -> TokenGradients:
    generator = torch.Generator().manual_seed(0)
    return TokenGradients(torch.randn(n, t, d1, generator=generator), torch.randn(n, t, d2, generator=generator))


def expected(of: TokenGradients, k: int) -> Tensor:
    values = torch.linalg.svdvals(of.x.double().mT @ of.dy.double()).square()
    return values[:, :k]


@pytest.mark.parametrize(("d1", "d2"), [(30, 40), (40, 30), (30, 30)])
@pytest.mark.parametrize("k", [1, 7, 25, 40])
def test_those_of_unformed_gradients_are_found_from_their_tokens(d1: int, d2: int, k: int) -> None:
    of = tokens(4, 12, d1, d2)
    found = squared_singular_values_from_tokens(of, k)
    assert found.shape == (4, min(k, d1, d2))
    torch.testing.assert_close(found, expected(of, k), rtol=1e-4, atol=1e-2)
    if k + 8 >= 12:
        formed = squared_singular_values(of.formed(), k)
        torch.testing.assert_close(found, formed, rtol=1e-4, atol=1e-2)


def test_padding_and_a_token_far_larger_than_the_others_cost_no_digits() -> None:
    of = tokens(3, 10, 24, 20)
    of.x[:, 7:], of.dy[:, 7:] = 0.0, 0.0
    # As of the first token of a text: huge activations, next to no gradient.
    of.x[:, 0] *= 1e4
    of.dy[:, 0] *= 1e-4
    torch.testing.assert_close(squared_singular_values_from_tokens(of, 7), expected(of, 7), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1e-18, 1e15])
def test_the_size_of_gradients_costs_no_digits(size: float) -> None:
    of = tokens(2, 6, 12, 16)
    large = TokenGradients(of.x * size, of.dy)
    for found in (
        squared_singular_values(large.formed(), 5),
        squared_singular_values(large.formed().mT, 5),
        squared_singular_values_from_tokens(large, 5),
    ):
        torch.testing.assert_close(found / size**2, expected(of, 5), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_of_a_gradient_that_is_not_finite_they_are_nan_and_of_the_others_what_they_are(fault: float) -> None:
    of = tokens(3, 6, 12, 16)
    sound = expected(of, 4)[::2]
    of.x[1, 2, 3] = fault
    for found in (squared_singular_values(of.formed(), 4), squared_singular_values_from_tokens(of, 4)):
        assert bool(found[1].isnan().all())
        torch.testing.assert_close(found[::2], sound, rtol=1e-3, atol=0.0)


def test_tokens_are_taken_where_they_are_few_and_the_values_are_the_same() -> None:
    assert is_cheaper_from_tokens(CPU, 70, 128, 192, 127)
    assert not is_cheaper_from_tokens(CPU, 512, 128, 192, 127)
    # Of wide gradients with many tokens few values are found approximately, and would be others from the tokens.
    assert not is_cheaper_from_tokens(CPU, 200, 512, 512, 64)
    assert not is_cheaper_from_tokens(torch.device("meta"), 70, 128, 192, 127)
