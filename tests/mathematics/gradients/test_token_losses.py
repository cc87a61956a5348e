"""Losses and the gradients of their logits are those of autograd through PyTorch's cross-entropy."""

import pytest
import torch

from lorif_assets.mathematics.gradients.token_losses import (
    IGNORED_LABEL,
    losses_of_targets,
    next_tokens,
    summed_cross_entropies,
)


@pytest.fixture
def labels() -> torch.Tensor:
    found = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(1))
    found[0, :4] = IGNORED_LABEL
    found[2] = IGNORED_LABEL
    return found


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_losses_and_gradients_are_those_of_autograd(kind, tolerance, size, labels):
    logits = (torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0)) * size).to(kind).requires_grad_()
    expected = summed_cross_entropies(logits, next_tokens(labels))
    expected.sum().backward()
    losses, gradient = losses_of_targets(logits.detach(), next_tokens(labels))
    assert gradient.dtype == kind
    assert torch.allclose(losses, expected, rtol=1e-6)
    assert torch.allclose(gradient.double(), logits.grad.double(), atol=tolerance)


def test_positions_without_a_target_have_no_gradient_even_where_their_logits_are_not_finite(labels):
    logits = torch.randn(3, 7, 11)
    logits[2] = float("nan")
    losses, gradient = losses_of_targets(logits, next_tokens(labels))
    assert losses[2] == 0
    assert bool((gradient[2] == 0).all())
    assert bool((gradient[:, -1] == 0).all())


def test_the_logits_stay_as_they_are(labels):
    logits = torch.randn(3, 7, 11)
    before = logits.clone()
    losses_of_targets(logits, next_tokens(labels))
    assert torch.equal(logits, before)
