"""Stored factors: a byte layout that anyone can read, and how much precision it keeps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lorif_assets.attribution.factor_codec import FactorCodec, decode, encode, factor_bytes
from lorif_assets.attribution.low_rank import GradientFactors, low_rank_factors
from tests.attribution.references import decode_with_numpy


@st.composite
def some_factors(draw: st.DrawFn) -> GradientFactors:
    n, d1, d2 = (draw(st.integers(low, 5)) for low in (0, 1, 1))
    c = draw(st.integers(1, min(d1, d2)))
    # BF16 has the range of FP32, but for the last half step below infinity and the digits of subnormal numbers.
    numbers = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)
    u, v = (torch.from_numpy(draw(arrays.arrays(np.float32, (n, d, c), elements=numbers))) for d in (d1, d2))
    return GradientFactors(u, v)


@settings(deadline=None, max_examples=30)
@given(some_factors())
def test_fp32_keeps_every_bit(factors):
    d1, d2 = factors.u.shape[1], factors.v.shape[1]
    back = decode(encode(factors, FactorCodec.FP32), FactorCodec.FP32, d1, d2)
    assert torch.equal(back.u, factors.u)
    assert torch.equal(back.v, factors.v)


@settings(deadline=None, max_examples=30)
@given(some_factors())
def test_bf16_keeps_every_number_to_one_part_in_256(factors):
    d1, d2 = factors.u.shape[1], factors.v.shape[1]
    back = decode(encode(factors, FactorCodec.BF16), FactorCodec.BF16, d1, d2)
    assert back.u.dtype == back.v.dtype == torch.float32
    for found, number in ((back.u, factors.u), (back.v, factors.v)):
        assert bool(((found - number).abs() <= number.abs() * 2**-8).all())


@settings(deadline=None, max_examples=20)
@given(some_factors(), st.sampled_from(FactorCodec))
def test_the_documented_bytes_can_be_read_with_numpy_alone(factors, codec):
    d1, d2 = factors.u.shape[1], factors.v.shape[1]
    rows = encode(factors, codec)
    back = decode(rows, codec, d1, d2)
    for i, row in enumerate(rows):
        u, v = decode_with_numpy(row.numpy().tobytes(), codec.value, d1, d2)
        np.testing.assert_array_equal(u, back.u[i].numpy())
        np.testing.assert_array_equal(v, back.v[i].numpy())


def test_the_bytes_of_one_example_are_pinned():
    factors = GradientFactors(torch.tensor([[[1.0, -2.0], [0.5, 0.0]]]), torch.tensor([[[3.0, 1.0]]]))
    assert encode(factors, FactorCodec.BF16).numpy().tobytes().hex() == "803f00c0003f000040" + "40803f"
    assert encode(factors, FactorCodec.FP32).numpy().tobytes() == np.array([1, -2, 0.5, 0, 3, 1], "<f4").tobytes()


@settings(deadline=None, max_examples=25)
@given(codec=st.sampled_from(FactorCodec), d1=st.integers(1, 6), d2=st.integers(1, 6), c=st.integers(1, 8))
def test_an_examples_bytes_are_as_many_as_announced_also_where_c_exceeds_the_layer(codec, d1, d2, c):
    rows = encode(low_rank_factors(torch.ones(2, d1, d2), c), codec)
    assert rows.dtype == torch.uint8
    assert rows.shape == (2, factor_bytes(codec, d1, d2, c))


def test_the_papers_storage_is_two_bytes_per_number():
    assert factor_bytes(FactorCodec.BF16, 48, 144, 1) == 2 * (48 + 144)
    assert factor_bytes(FactorCodec.FP32, 48, 144, 4) == 4 * 4 * (48 + 144)


@pytest.mark.parametrize("codec", FactorCodec)
@pytest.mark.parametrize("n_bytes", [0, 1, 7, 20, 27, 30, 1001])
def test_bytes_of_another_shape_are_refused(codec, n_bytes):
    with pytest.raises(ValueError, match=f"{n_bytes} bytes are no whole number of {codec.value} components of 3 . 4"):
        decode(torch.zeros(2, n_bytes, dtype=torch.uint8), codec, 3, 4)


def test_rows_that_are_a_view_decode_like_their_copy():
    stored = encode(low_rank_factors(torch.arange(60.0).reshape(5, 3, 4), 1), FactorCodec.BF16)
    every_other = decode(stored[1::2], FactorCodec.BF16, 3, 4)
    assert torch.equal(every_other.u, decode(stored, FactorCodec.BF16, 3, 4).u[1::2])
