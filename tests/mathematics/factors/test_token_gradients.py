"""Factors from tokens are those of the gradient that the tokens sum to, and are taken where that is cheaper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.mathematics.factors.low_rank import GradientFactors, factors_in_rounds, low_rank_factors
from lorif_assets.mathematics.factors.token_gradients import FactorWork, TokenGradients
from tests.mathematics.references import relative_error


def tokens(n: int, t: int, d1: int, d2: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> TokenGradients:
    generator = torch.Generator().manual_seed(seed)
    return TokenGradients(*(torch.randn(n, t, d, generator=generator, dtype=dtype) for d in (d1, d2)))


@settings(deadline=None, max_examples=40)
@given(
    t=st.integers(1, 12),
    d1=st.integers(1, 30),
    d2=st.integers(1, 30),
    c=st.integers(1, 6),
    scales=st.tuples(*[st.sampled_from([1e-8, 1.0, 1e8])] * 2),
    seed=st.integers(0, 99),
)
def test_factors_from_tokens_are_those_of_the_formed_gradient(t, d1, d2, c, scales, seed):
    given_tokens = tokens(3, t, d1, d2, seed)
    scaled = TokenGradients(given_tokens.x * scales[0], given_tokens.dy * scales[1])
    gradients = torch.einsum("nti,nto->nio", given_tokens.x, given_tokens.dy)
    (found,), expected = factors_in_rounds([scaled.scaled()], c, 6), low_rank_factors(gradients, c, rounds=6)
    assert found.are_singular
    plain = GradientFactors(found.u / (scales[0] * scales[1]), found.v)
    assert relative_error(plain.dense(), expected.dense()) < 1e-5


def test_the_tokens_of_several_calls_are_summed():
    calls = [(part.x, part.dy) for part in (tokens(2, 5, 6, 4, 1), tokens(2, 3, 6, 4, 2))]
    expected = sum(x.mT @ dy for x, dy in calls)
    torch.testing.assert_close(TokenGradients.of_calls(calls).formed(), expected)


def test_rows_of_padding_that_are_zero_change_nothing():
    short = tokens(2, 5, 8, 6, dtype=torch.float32)
    padded = TokenGradients(*(torch.nn.functional.pad(side, (0, 0, 0, 7)) for side in (short.x, short.dy)))
    one, other = factors_in_rounds([padded.scaled(), short.scaled()], 3, 6)
    assert relative_error(one.dense(), other.dense()) < 1e-5


def test_batches_are_joined_and_rows_taken_out():
    parts = [tokens(2, 3, 4, 5, seed) for seed in (1, 2)]
    joined = TokenGradients.joined(parts)
    assert joined.numbers == 4 * 3 * 9
    torch.testing.assert_close(joined.at(torch.tensor([2])).formed(), parts[1].formed()[:1])
    assert joined.at(None) is joined
    assert TokenGradients.joined(parts[:1]) is parts[0]


def work(tokens: int, d1: int, d2: int, whitening: tuple[int, int] = (0, 0), share: float = 0.0) -> FactorWork:
    return FactorWork(tokens, d1, d2, c=16, rounds=4, whitening=whitening, fisher_share=share)


@pytest.mark.parametrize(
    ("given_work", "is_cheaper"),
    [
        # Wide layers and short sequences; with whitening by a few eigenvectors and a sample for the squares too.
        (work(128, 2_048, 8_192), True),
        (work(128, 2_048, 8_192, (128, 128), 1 / 16), True),
        (work(512, 4_096, 4_096, (128, 128), 1 / 16), True),
        # Narrow layers and long sequences.
        (work(2_048, 96, 384), False),
        (work(512, 96, 288, (96, 288), 1.0), False),
        # Where every gradient is formed for its squares anyway, whitening tokens comes on top.
        (work(512, 256, 256, (256, 256), 1.0), False),
    ],
)
def test_the_way_with_fewer_products_is_taken(given_work, is_cheaper):
    assert given_work.is_cheaper_from_tokens == is_cheaper
    assert (given_work.from_tokens < given_work.formed) == is_cheaper


def test_the_counts_are_those_of_the_products_that_are_made():
    """By hand, for one layer: T d1 d2 to form; 2 x 4 + 1 products with 32 columns from either side."""
    assert work(10, 100, 200).formed == 10 * 100 * 200 + 9 * 100 * 200 * 32
    assert work(10, 100, 200).from_tokens == 9 * 10 * 300 * 32
    whitened = work(10, 100, 200, (100, 200), 0.5)
    assert whitened.formed == work(10, 100, 200).formed + 100 * 200 * 300
    assert whitened.from_tokens == (
        work(10, 100, 200).from_tokens + 10 * (100 * 100 + 200 * 200) + 0.5 * (10 * 100 * 200 + 100 * 200 * 300)
    )
