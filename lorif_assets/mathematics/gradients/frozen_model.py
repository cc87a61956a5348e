"""A model while its gradients are looked at: in eval mode, with frozen weights, and embeddings that require grad."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode and freeze its weights; on exit its own flags are restored."""
    in_training = [module for module in model.modules() if module.training]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module in in_training:
            module.training = True


def require_grad(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    """Let the embeddings' output require grad: a forward hook of theirs."""
    # A copy, as autograd lets no model write into a leaf.
    return output.requires_grad_(True).clone()
