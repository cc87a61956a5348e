"""Tail-patch (Chang et al. 2024, arXiv 2410.17413): what an optimiser step on an example does to a query's completion."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def patched(model: nn.Module, loss: Callable[[], Tensor], learning_rate: float) -> Iterator[None]:
    """Take one step on a loss; after the block, the model's weights are what they were before, bit for bit.

    The step is Adam's first, without weight decay: every weight moves by about the learning rate.

    Args:
        model: any model, in any mode; its weights' gradients and `requires_grad` are as before, too.
        loss: computes the loss that the step lowers.
        learning_rate: of the step.
    """
    parameters = list(model.parameters())
    before = [(p.detach().clone(), p.requires_grad) for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()
        yield
    finally:
        with torch.no_grad():
            for parameter, (value, needed) in zip(parameters, before, strict=True):
                parameter.copy_(value)
                parameter.requires_grad_(needed)
