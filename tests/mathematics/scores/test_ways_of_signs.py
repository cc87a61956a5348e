"""Which way scores of packed signs take: as they are for up to 128 queries, unpacked into dense blocks for more."""

import pytest
import torch

from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.factors.packed_signs import PackedSigns
from lorif_assets.mathematics.scores import scoring

D1, D2, N, C = 8, 16, 600, 2


@pytest.mark.parametrize(("n_queries", "as_they_are"), [(1, True), (128, True), (129, False)])
def test_signs_are_scored_as_they_are_for_few_queries_with_the_scores_of_the_other_way(
    monkeypatch: pytest.MonkeyPatch, n_queries: int, as_they_are: bool
) -> None:
    monkeypatch.setattr(scoring, "_FEWEST_COMPONENTS", 1)
    generator = torch.Generator().manual_seed(0)
    packed = [torch.randint(0, 256, (N, C, d // 8), dtype=torch.uint8, generator=generator) for d in (D1, D2)]
    signs = PackedSigns(torch.rand(N, C, generator=generator), packed[0], packed[1], D1, D2)
    queries = torch.randn(n_queries, D1 * D2, generator=generator)
    ways: list[bool] = []
    original = scoring.sign_scores

    def spied(queries: torch.Tensor, signs: PackedSigns) -> torch.Tensor:
        ways.append(True)
        return original(queries, signs)

    monkeypatch.setattr(scoring, "sign_scores", spied)
    scores = scoring.block_scores({"layer": queries}, {"layer": signs})
    assert bool(ways) is as_they_are
    torch.testing.assert_close(scores, queries @ signs.factors().dense().mT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_numbers", [1, 400, 1 << 30])
def test_low_rank_queries_are_scored_with_signs_block_by_block_as_with_dense_gradients(
    monkeypatch: pytest.MonkeyPatch, n_numbers: int
) -> None:
    monkeypatch.setattr(scoring, "_FEWEST_COMPONENTS", 1)
    monkeypatch.setattr(scoring, "_BLOCK_NUMBERS", n_numbers)
    generator = torch.Generator().manual_seed(0)
    packed = [torch.randint(0, 256, (N, C, d // 8), dtype=torch.uint8, generator=generator) for d in (D1, D2)]
    signs = PackedSigns(torch.rand(N, C, generator=generator), packed[0], packed[1], D1, D2)
    queries = GradientFactors(*(torch.randn(3, d, 2, generator=generator) for d in (D1, D2)))
    scores = scoring.block_scores({"layer": queries}, {"layer": signs})
    torch.testing.assert_close(scores, queries.dense() @ signs.factors().dense().mT, rtol=1e-4, atol=1e-4)
