"""Where the ways of an accelerator and of a CPU part: this module alone decides it.

A CPU calls LAPACK for one small matrix after the other, and loses nothing by it. An accelerator has thousands of lanes,
which one matrix at a time leaves idle, and waits for the host at each of its copies: its ways are products over whole
batches, and what they need is copied to it once.
"""

import torch


def is_accelerator(device: torch.device) -> bool:
    """Whether computations on a device are to be products over whole batches."""
    return device.type != "cpu"
