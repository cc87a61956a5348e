"""Random subsets of the training data, on each of which a model is retrained."""

from collections.abc import Sequence
from hashlib import blake2b


def subset_members(example_ids: Sequence[str], share: float, seed: int, subset: int) -> list[str]:
    """Return the examples of one random subset, in their own order.

    An example's place in the draw depends on its id, the seed and the subset's number alone: the order of the data does
    not matter, and as data grow, examples that were drawn stay, except the few that new ones displace.

    Args:
        example_ids: ids of all examples.
        share: share of the examples to draw, between 0 and 1; at least one is drawn, and at least one is left out.
        seed: of all subsets.
        subset: number of this one.

    Raises:
        ValueError: fewer than two examples, or a share that is not between 0 and 1.
    """
    if not 0 < share < 1 or len(example_ids) < 2:
        raise ValueError(
            f"a random subset is a share between 0 and 1 of at least two examples; found {share} of {len(example_ids)}"
        )
    size = min(max(round(share * len(example_ids)), 1), len(example_ids) - 1)
    drawn = set(sorted(example_ids, key=lambda name: _place(name, seed, subset))[:size])
    return [name for name in example_ids if name in drawn]


def _place(example_id: str, seed: int, subset: int) -> bytes:
    return blake2b(f"{seed}|{subset}|{example_id}".encode(), digest_size=16).digest()
