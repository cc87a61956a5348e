"""Modules whose forward pass is another one for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any], *, moves_inputs: bool = True) -> Iterator[None]:
    """Give a module another forward pass, until the context is left.

    Args:
        module: the module.
        forward: what its calls do in between.
        moves_inputs: whether those of a module that is spread over devices move their inputs to its device before.
    """
    # accelerate moves inputs in a forward pass of its own, in the object, and calls the module's own in it.
    name = "_old_forward" if moves_inputs and hasattr(module, "_old_forward") else "forward"
    before = module.__dict__.get(name)
    setattr(module, name, forward)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)
