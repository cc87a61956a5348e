"""Products with signs that stay packed: those of the unpacked signs, to FP32's precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.mathematics.factors import packed_signs
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode, scored_form
from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.factors.packed_signs import PackedSigns, SignProducts, unpacked_signs
from lorif_assets.mathematics.scores import scoring
from lorif_assets.mathematics.scores.scoring import block_scores, low_rank_queries


@pytest.fixture(autouse=True)
def _few_examples_are_enough():
    """A few examples are scored as many are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_FEWEST_COMPONENTS", 0)
        yield


def stored_signs(n: int, d1: int, d2: int, c: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    u, v = (torch.randn(n, d, min(c, d1, d2), generator=generator) for d in (d1, d2))
    return encode(GradientFactors(u, v), FactorCodec.SIGN)


@settings(deadline=None, max_examples=60)
@given(m=st.integers(0, 9), d=st.integers(1, 40), n=st.integers(0, 9), seed=st.integers(0, 99))
def test_products_of_packed_signs_are_those_of_the_signs(m, d, n, seed):
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, (m, -(-d // 8)), dtype=torch.uint8, generator=generator)
    matrix = torch.randn(d, n, generator=generator)
    expected = unpacked_signs(packed, d).double() @ matrix.double()
    torch.testing.assert_close(SignProducts(packed).of(matrix).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("table_numbers", "columns"), [(1, 1), (256 * 3 * 2, 3), (1 << 19, 128)])
def test_products_do_not_depend_on_where_tables_are_cut(monkeypatch, table_numbers, columns):
    monkeypatch.setattr(packed_signs, "_TABLE_NUMBERS", table_numbers)
    monkeypatch.setattr(packed_signs, "_TABLE_COLUMNS", columns)
    packed = torch.randint(0, 256, (5, 7), dtype=torch.uint8)
    matrix = torch.randn(50, 10)
    expected = unpacked_signs(packed, 50).double() @ matrix.double()
    torch.testing.assert_close(SignProducts(packed).of(matrix).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_first_sign_lies_in_the_least_significant_bit():
    assert unpacked_signs(torch.tensor([[0b00000101]], dtype=torch.uint8), 4).tolist() == [[1, -1, 1, -1]]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 12),
    widths=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    c=st.integers(1, 5),
    n_queries=st.sampled_from([0, 1, 3, 200]),
    size=st.integers(-20, 20),
    seed=st.integers(0, 99),
)
def test_packed_signs_score_as_exact_arithmetic_does_to_a_millionth_of_the_scores_size(
    n, widths, c, n_queries, size, seed
):
    data = stored_signs(n, *widths, c, seed)
    queries = torch.randn(n_queries, widths[0] * widths[1], generator=torch.Generator().manual_seed(seed)) * 10.0**size
    dense = decode(data, FactorCodec.SIGN, *widths).dense().double()
    exact = queries.double() @ dense.mT
    found = block_scores({"layer": queries}, {"layer": scored_form(data, FactorCodec.SIGN, *widths)})
    # What scores of such sizes come to where signs are random.
    typical = queries.double().square().sum(1, keepdim=True).sqrt() * dense.square().mean(1).sqrt()
    assert bool(((found.double() - exact).abs() <= 5e-6 * typical).all())


@pytest.mark.parametrize("components", [1, 7, 1 << 14])
@pytest.mark.parametrize(("d1", "d2"), [(9, 33), (33, 9), (8, 8)])
@pytest.mark.parametrize("rank", [1, 3])
def test_queries_at_a_rank_score_packed_signs_as_they_score_decoded_ones(monkeypatch, components, d1, d2, rank):
    monkeypatch.setattr(scoring, "_COMPONENTS", components)
    data = stored_signs(6, d1, d2, 3)
    queries, _ = low_rank_queries(torch.randn(4, d1, d2, generator=torch.Generator().manual_seed(1)), rank)
    expected = block_scores({"layer": queries}, {"layer": decode(data, FactorCodec.SIGN, d1, d2)})
    found = block_scores({"layer": queries}, {"layer": scored_form(data, FactorCodec.SIGN, d1, d2)})
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_score_does_not_depend_on_the_examples_beside_it(monkeypatch):
    data, queries = stored_signs(50, 24, 40, 4), torch.randn(3, 24 * 40)
    whole = block_scores({"layer": queries}, {"layer": scored_form(data, FactorCodec.SIGN, 24, 40)})
    monkeypatch.setattr(scoring, "_COMPONENTS", 12)
    parts = block_scores({"layer": queries}, {"layer": scored_form(data, FactorCodec.SIGN, 24, 40)})
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("n", [0, 127, 128, 200])
def test_few_and_many_examples_score_alike(monkeypatch, n):
    monkeypatch.setattr(scoring, "_FEWEST_COMPONENTS", 512)
    data, queries = stored_signs(n, 24, 40, 4), torch.randn(3, 24 * 40, generator=torch.Generator().manual_seed(2))
    found = block_scores({"layer": queries}, {"layer": scored_form(data, FactorCodec.SIGN, 24, 40)})
    exact = queries.double() @ decode(data, FactorCodec.SIGN, 24, 40).dense().double().mT
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def test_only_signs_on_a_cpu_stay_packed():
    assert isinstance(scored_form(stored_signs(2, 4, 4, 1), FactorCodec.SIGN, 4, 4), PackedSigns)
    assert isinstance(scored_form(stored_signs(2, 4, 4, 1).to("meta"), FactorCodec.SIGN, 4, 4), GradientFactors)
    factors = GradientFactors(torch.ones(2, 4, 1), torch.ones(2, 4, 1))
    for codec in set(FactorCodec) - {FactorCodec.SIGN}:
        assert isinstance(scored_form(encode(factors, codec), codec, 4, 4), GradientFactors)


def test_packed_signs_are_the_factors_that_are_decoded():
    data = stored_signs(5, 11, 6, 3)
    packed = scored_form(data, FactorCodec.SIGN, 11, 6)
    assert isinstance(packed, PackedSigns)
    unpacked, decoded = packed.factors(), decode(data, FactorCodec.SIGN, 11, 6)
    assert torch.equal(unpacked.u, decoded.u)
    assert torch.equal(unpacked.v, decoded.v)
