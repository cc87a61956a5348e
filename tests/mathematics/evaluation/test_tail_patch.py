import pytest
import torch
from torch import nn

from lorif_assets.mathematics.evaluation.tail_patch import patched


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    net[0].weight.requires_grad_(False)
    return net


def loss_of(model):
    x = torch.ones(3, 4)
    return lambda: model(x).square().sum()


def state(model):
    return [(p.detach().clone(), p.requires_grad, p.grad) for p in model.parameters()]


def test_inside_the_block_the_loss_is_lower(model):
    loss = loss_of(model)
    before = loss().item()
    with patched(model, loss, 1e-2):
        assert loss().item() < before


def test_every_weight_moves_by_about_the_learning_rate(model):
    before = [p.detach().clone() for p in model.parameters()]
    with patched(model, loss_of(model), 1e-3):
        moved = torch.cat([(p.detach() - b).abs().flatten() for p, b in zip(model.parameters(), before, strict=True)])
    assert float(moved.max()) == pytest.approx(1e-3, rel=1e-3)
    assert float(moved.median()) == pytest.approx(1e-3, rel=1e-2)


def test_afterwards_weights_are_what_they_were_bit_for_bit(model):
    before = state(model)
    with patched(model, loss_of(model), 0.5):
        pass
    for (value, needed, grad), parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(value, parameter)
        assert (needed, grad) == (parameter.requires_grad, parameter.grad)


def test_weights_come_back_also_when_the_block_fails(model):
    before = state(model)
    with pytest.raises(RuntimeError, match="no"), patched(model, loss_of(model), 0.5):
        raise RuntimeError("no")
    assert all(torch.equal(value, p) for (value, *_), p in zip(before, model.parameters(), strict=True))
