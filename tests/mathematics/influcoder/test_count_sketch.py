"""CountSketch: the same everywhere, unbiased, and as exact as its variance promises."""

import pytest
import torch

from lorif_assets.mathematics.influcoder.count_sketch import CountSketch

SIZES = {"a": 300, "b": 100}


def _vectors(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, sum(SIZES.values()), generator=torch.Generator().manual_seed(seed))


def _parts(vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"a": vectors[:, :300].reshape(-1, 30, 10), "b": vectors[:, 300:]}


def test_a_sketch_is_the_signed_sum_of_each_buckets_coordinates() -> None:
    sketch = CountSketch.draw(SIZES, dim=16, seed=42)
    (vector,) = _vectors(1)
    buckets, signs = torch.cat(list(sketch.buckets.values())), torch.cat(list(sketch.signs.values()))
    expected = [sum(float(s * g) for h, s, g in zip(buckets, signs, vector, strict=True) if h == b) for b in range(16)]
    torch.testing.assert_close(sketch.apply(_parts(vector[None]))[0], torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_inner_products_are_kept_on_average_over_draws() -> None:
    left, right = _vectors(2).unbind()
    right = left + right
    dim, draws = 32, 2_000
    products = []
    for seed in range(draws):
        a, b = CountSketch.draw(SIZES, dim, seed).apply(_parts(torch.stack([left, right])))
        products.append(float(a @ b))
    exact = float(left @ right)
    bound = (float(left @ left) * float(right @ right) + exact**2) / dim
    deviation = torch.tensor(products) - exact
    assert float(deviation.square().mean()) <= 1.1 * bound
    assert abs(float(deviation.mean())) < 4 * (bound / draws) ** 0.5


@pytest.mark.parametrize("dim", [256, 4096])
def test_cosines_of_sketches_are_as_close_as_the_dimension_promises(dim: int) -> None:
    vectors = torch.nn.functional.normalize(_vectors(40), dim=1)
    sketched = torch.nn.functional.normalize(CountSketch.draw(SIZES, dim, 42).apply(_parts(vectors)), dim=1)
    error = (sketched @ sketched.mT - vectors @ vectors.mT).abs().max()
    assert error < 5 * (2 / dim) ** 0.5


def test_the_draw_depends_on_the_seed_alone() -> None:
    draw, again, other = (CountSketch.draw(SIZES, 64, seed) for seed in (1, 1, 2))
    assert torch.equal(draw.buckets["b"], again.buckets["b"])
    assert torch.equal(draw.signs["b"], again.signs["b"])
    assert not torch.equal(draw.buckets["b"], other.buckets["b"])
    # A change here is a change of every stored target.
    assert draw.buckets["a"][:4].tolist() == [47, 23, 25, 17]


def test_a_vector_of_other_parts_is_refused() -> None:
    sketch = CountSketch.draw(SIZES, 8, 0)
    with pytest.raises(ValueError, match="100 coordinates of 'b', found 99"):
        sketch.apply({"a": torch.zeros(2, 300), "b": torch.zeros(2, 99)})
    with pytest.raises(ValueError, match="at least one bucket"):
        CountSketch.draw(SIZES, 0, 0)
