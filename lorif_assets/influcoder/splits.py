"""Dealing sampled texts anew to distilling and holding out, for another seed."""

from collections.abc import Sequence

import numpy as np


def dealt_anew(held_out: Sequence[bool], seed: int) -> list[bool]:
    """Return which texts are held out under a seed: as many as before."""
    return np.random.default_rng(seed).permutation(np.asarray(held_out, dtype=np.bool_)).tolist()
