"""Distillation: the published loss, block by block, and a training that repeats."""

import math

import pytest
import torch
from scipy.stats import pearsonr
from torch import nn

from lorif_assets.mathematics.influcoder.distillation import (
    DistillationConfig,
    distil,
    distillation_loss,
    learning_rate_factor,
    sample_candidates,
)


def _blocks(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(8, 16, generator=generator) * 2 - 1 for _ in range(2))


def _plain_kl(target: list[float], predicted: list[float], tau: float) -> float:
    def softmax(row: list[float]) -> list[float]:
        powers = [math.exp(value / tau) for value in row]
        return [power / sum(powers) for power in powers]

    return sum(p * math.log(p / q) for p, q in zip(softmax(target), softmax(predicted), strict=True))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_loss_is_that_of_a_plain_reference(alpha: float) -> None:
    predicted, target = _blocks()
    loss, pearson, kl = distillation_loss(predicted, target, alpha, 0.05)
    rows = zip(target.double().tolist(), predicted.double().tolist(), strict=True)
    expected_kl = sum(_plain_kl(t, p, 0.05) for t, p in rows) / 8
    expected_pearson = 1 - pearsonr(predicted.double().flatten().numpy(), target.double().flatten().numpy()).statistic
    assert float(kl) == pytest.approx(expected_kl, rel=1e-4)
    assert float(pearson) == pytest.approx(expected_pearson, rel=1e-4)
    assert float(loss) == pytest.approx(alpha * expected_pearson + (1 - alpha) * expected_kl, rel=1e-4)


def test_a_perfect_prediction_costs_nothing() -> None:
    target, _ = _blocks()
    loss, _, _ = distillation_loss(target, target, 0.5, 0.05)
    assert float(loss) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("hard_ratio", [0.0, 0.5, 1.0])
def test_candidates_are_distinct_and_as_many_as_asked_for(hard_ratio: float) -> None:
    targets = torch.rand(8, 100, generator=torch.Generator().manual_seed(0))
    drawn = sample_candidates(targets, 16, hard_ratio, torch.Generator().manual_seed(1))
    assert len(set(drawn)) == 16


def test_hard_candidates_come_from_the_anchors_highest_targets() -> None:
    targets = torch.rand(8, 1000, generator=torch.Generator().manual_seed(0))
    drawn = sample_candidates(targets, 16, 0.5, torch.Generator().manual_seed(1))
    leading = set(targets.topk(2 * (8 // 8 + 1), dim=1).indices.flatten().tolist())
    assert len(leading & set(drawn)) >= 8


def test_a_pool_smaller_than_a_block_is_taken_whole() -> None:
    assert sorted(sample_candidates(torch.rand(2, 5), 16, 0.5, torch.Generator().manual_seed(0))) == list(range(5))


def test_the_learning_rate_rises_over_a_tenth_and_falls_to_nothing() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[0] == 0.0
    assert factors[10] == max(factors) == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0.0


class _Tables(nn.Module):
    """An embedding for each anchor and pool text: what a text encoder is without reading."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.anchors = nn.Parameter(torch.randn(20, 8, generator=generator))
        self.pool = nn.Parameter(torch.randn(40, 8, generator=generator))

    def train_on(self, targets: torch.Tensor, config: DistillationConfig) -> list[float]:
        steps = distil(
            list(self.parameters()), lambda rows: self.anchors[rows], lambda rows: self.pool[rows], targets, config
        )
        return [step.total for step in steps]


def test_training_brings_cosines_to_the_targets_and_repeats_with_its_seed() -> None:
    generator = torch.Generator().manual_seed(5)
    left, right = (nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (20, 40))
    targets = left @ right.mT
    config = DistillationConfig(epochs=200, learning_rate=0.05, alpha=1.0)
    model, again = _Tables(), _Tables()
    losses = model.train_on(targets, config)
    assert losses == again.train_on(targets, config)
    assert len(losses) == 200 * 3
    learned = nn.functional.normalize(model.anchors, dim=1) @ nn.functional.normalize(model.pool, dim=1).mT
    correlation = torch.corrcoef(torch.stack([learned.detach().flatten(), targets.flatten()]))[0, 1]
    assert correlation > 0.95
