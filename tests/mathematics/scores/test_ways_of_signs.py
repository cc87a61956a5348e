"""Which way scores of packed signs take: components one by one for few queries times components, dense blocks for many."""

import pytest
import torch

from lorif_assets.mathematics.factors.packed_signs import PackedSigns
from lorif_assets.mathematics.scores import scoring

D1, D2, N = 8, 16, 600


@pytest.mark.parametrize(
    ("n_queries", "c", "by_component"), [(24, 8, True), (25, 8, False), (192, 1, True), (193, 1, False)]
)
def test_few_queries_are_scored_component_by_component_with_the_scores_of_the_other_way(
    monkeypatch: pytest.MonkeyPatch, n_queries: int, c: int, by_component: bool
) -> None:
    monkeypatch.setattr(scoring, "_FEWEST_COMPONENTS", 1)
    generator = torch.Generator().manual_seed(0)
    packed = [torch.randint(0, 256, (N, c, d // 8), dtype=torch.uint8, generator=generator) for d in (D1, D2)]
    signs = PackedSigns(torch.rand(N, c, generator=generator), packed[0], packed[1], D1, D2)
    queries = torch.randn(n_queries, D1 * D2, generator=generator)
    ways: list[bool] = []
    original = scoring._sign_scores

    def spied(queries: torch.Tensor, signs: PackedSigns) -> torch.Tensor:
        ways.append(True)
        return original(queries, signs)

    monkeypatch.setattr(scoring, "_sign_scores", spied)
    scores = scoring.block_scores({"layer": queries}, {"layer": signs})
    assert bool(ways) is by_component
    torch.testing.assert_close(scores, queries @ signs.factors().dense().mT, rtol=1e-4, atol=1e-4)
