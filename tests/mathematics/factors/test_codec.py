"""Stored factors: a byte layout that anyone can read, and how much precision it keeps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode, factor_bytes
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors, singular_factors
from tests.mathematics.references import decode_with_numpy, relative_error


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


@st.composite
def some_gradients(draw: st.DrawFn) -> torch.Tensor:
    """Odd and even widths, one and many numbers, zeros, and sizes from nearly the smallest to nearly the largest FP32."""
    n, d1, d2 = draw(st.integers(0, 4)), draw(st.integers(1, 19)), draw(st.integers(1, 19))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    gradients = torch.randn(n, d1, d2, generator=generator) * 10.0 ** draw(st.integers(-30, 30))
    if n and draw(st.booleans()):
        gradients[0] = 0
    return gradients


QUANTIZED = (FactorCodec.INT8, FactorCodec.INT4, FactorCodec.SIGN)


@settings(deadline=None, max_examples=60)
@given(some_gradients(), st.integers(1, 4), st.sampled_from([(FactorCodec.INT8, 127), (FactorCodec.INT4, 7)]))
def test_integer_codes_err_by_half_a_unit_of_each_vector_at_most(gradients, c, codec_and_largest):
    codec, largest = codec_and_largest
    exact = singular_factors(low_rank_factors(gradients, c))
    back = decode(encode(exact, codec), codec, *gradients.shape[1:])
    for k in range(exact.u.shape[2]):
        p, q, found = exact.u[:, :, k], exact.v[:, :, k], back.u[:, :, k, None] * back.v[:, None, :, k]
        half_p, half_q = (x.abs().amax(1) / largest / 2 for x in (p, q))
        bound = p.abs().amax(1) * half_q + q.abs().amax(1) * half_p + half_p * half_q
        error = (found - p.unsqueeze(2) * q.unsqueeze(1)).abs().flatten(1)
        assert bool((error <= bound.unsqueeze(1) * 1.001).all())


@settings(deadline=None, max_examples=30)
@given(some_gradients(), st.integers(1, 4))
def test_signs_keep_every_sign_of_a_component_and_the_mean_magnitude(gradients, c):
    exact = singular_factors(low_rank_factors(gradients, c))
    back = decode(encode(exact, FactorCodec.SIGN), FactorCodec.SIGN, *gradients.shape[1:])
    for k in range(exact.u.shape[2]):
        found, wanted = (f.u[:, :, k, None] * f.v[:, None, :, k] for f in (back, exact))
        assert bool((found.sign() == wanted.sign())[wanted != 0].all())
        magnitudes = wanted.abs().mean((1, 2), keepdim=True).expand_as(found)
        torch.testing.assert_close(found.abs(), magnitudes, rtol=1e-4, atol=1e-37)


@settings(deadline=None, max_examples=20)
@given(some_gradients(), st.integers(1, 3), st.sampled_from(QUANTIZED))
def test_decoded_components_are_balanced_up_to_their_widths(gradients, c, codec):
    back = decode(encode(low_rank_factors(gradients, c), codec), codec, *gradients.shape[1:])
    largest_u, largest_v = back.u.abs().amax(1), back.v.abs().amax(1)
    torch.testing.assert_close(largest_u, largest_v, rtol=1e-6, atol=0)


def test_the_more_bits_the_nearer():
    factors = low_rank_factors(torch.randn(20, 24, 33, generator=torch.Generator().manual_seed(0)), 4)
    errors = [
        relative_error(decode(encode(factors, codec), codec, 24, 33).dense(), factors.dense()) for codec in QUANTIZED
    ]
    assert errors[0] < 0.02
    assert errors[0] < errors[1] < 0.25
    assert errors[1] < errors[2] < 0.9


def test_vectors_of_zeros_decode_to_zeros_and_disturb_no_other():
    gradients = torch.zeros(3, 5, 9)
    gradients[1] = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    for codec in QUANTIZED:
        back = decode(encode(low_rank_factors(gradients, 2), codec), codec, 5, 9).dense()
        alone = decode(encode(low_rank_factors(gradients[1:2], 2), codec), codec, 5, 9).dense()
        assert not back[0].any()
        assert not back[2].any()
        assert relative_error(back[1:2], alone) < 1e-5


@settings(deadline=None, max_examples=40)
@given(some_gradients(), st.integers(1, 3), st.sampled_from(QUANTIZED))
def test_the_documented_records_can_be_read_with_numpy_alone(gradients, c, codec):
    rows = encode(low_rank_factors(gradients, c), codec)
    back = decode(rows, codec, *gradients.shape[1:])
    for i, row in enumerate(rows):
        u, v = decode_with_numpy(row.numpy().tobytes(), codec.value, *gradients.shape[1:])
        np.testing.assert_allclose(u, back.u[i].numpy(), rtol=1e-6)
        np.testing.assert_allclose(v, back.v[i].numpy(), rtol=1e-6)


def test_the_records_of_one_example_are_pinned():
    factors = GradientFactors(torch.tensor([[[-4.0], [0.0], [3.5]]]), torch.tensor([[[0.25], [-1.0]]]))
    found = {codec: encode(factors, codec).numpy().tobytes() for codec in QUANTIZED}
    assert found[FactorCodec.SIGN] == np.array([2.5 * 0.625], "<f4").tobytes() + bytes([0b110, 0b01])
    assert found[FactorCodec.INT4][4:] == bytes([(8 << 4) | 1, 14, (1 << 4) | 10])
    assert found[FactorCodec.INT8][4:] == np.array([-127, 0, 111, 32, -127], np.int8).tobytes()


@settings(deadline=None, max_examples=20)
@given(some_factors(), st.sampled_from([FactorCodec.BF16, FactorCodec.FP32]))
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


def test_quantized_components_take_their_codes_filled_up_to_bytes_and_four_bytes_of_scale():
    assert [factor_bytes(codec, 768, 2305, 3) for codec in QUANTIZED] == [
        3 * (4 + 768 + 2305),
        3 * (4 + 384 + 1153),
        3 * (4 + 96 + 289),
    ]


@pytest.mark.parametrize("codec", FactorCodec)
@pytest.mark.parametrize("n_bytes", [0, 1, 5, 20, 27, 29, 1003])
def test_bytes_of_another_shape_are_refused(codec, n_bytes):
    with pytest.raises(ValueError, match=f"{n_bytes} bytes are no whole number of {codec.value} components of 3 . 4"):
        decode(torch.zeros(2, n_bytes, dtype=torch.uint8), codec, 3, 4)


def test_rows_that_are_a_view_decode_like_their_copy():
    stored = encode(low_rank_factors(torch.arange(60.0).reshape(5, 3, 4), 1), FactorCodec.BF16)
    every_other = decode(stored[1::2], FactorCodec.BF16, 3, 4)
    assert torch.equal(every_other.u, decode(stored, FactorCodec.BF16, 3, 4).u[1::2])
