"""The audit of what an encoder is measured on: whether training already contained it, or nearly."""

from collections.abc import Iterator, Sequence

import polars as pl

from lorif_assets.influcoder.sampling import Role, Split, deal_again
from lorif_assets.influcoder.text_views import INSTRUCTION
from lorif_assets.lake.influcoder_tables import INFLUENCE_TARGETS
from lorif_assets.lake.lake import Lake


def leaks(lake: Lake, checkpoint: str, seeds: Sequence[int]) -> Iterator[str]:
    """Yield a line for every pair of a distilled and a held-out text of a checkpoint that are equal or near-duplicates.

    Anchors and pool are compared together: an anchor that repeats a pool text is a leak too.

    Args:
        lake: where the sampled texts are.
        checkpoint: whose targets.
        seeds: evaluation seeds; each deals the texts again.
    """
    from lorif_assets.mathematics.influcoder.leakage import overlaps

    columns = ["role", "position", "split", "example_id", "text"]
    rows = lake.read(INFLUENCE_TARGETS, columns, checkpoint=checkpoint).sort("role", "position")
    by_role = {role: rows.filter(pl.col("role") == role) for role in (Role.ANCHOR, Role.POOL)}
    held_out = {role: [split == Split.HELD_OUT for split in part["split"]] for role, part in by_role.items()}
    splits = {"the served split": held_out}
    for seed in seeds:
        splits[f"seed {seed}"] = {role: deal_again(flags, seed) for role, flags in held_out.items()}
    for name, flags in splits.items():
        distilled, measured = (
            [
                (example_id, _content(text))
                for role, part in by_role.items()
                for example_id, text, flag in zip(part["example_id"], part["text"], flags[role], strict=True)
                if flag is wanted
            ]
            for wanted in (False, True)
        )
        for pair in overlaps([text for _, text in distilled], [text for _, text in measured]):
            yield (
                f"{checkpoint}, {name}: {measured[pair.right][0]} is held out and {distilled[pair.left][0]} distilled; "
                f"{pair.similarity:.0%} of their word trigrams are the same"
            )


def _content(text: str) -> str:
    """Return an encoder's text without the instruction, which all anchors share."""
    return text.removeprefix(f"Instruct: {INSTRUCTION}\nQuery: ")
