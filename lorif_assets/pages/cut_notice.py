"""What is said beside an answer whose question, or example, was too long for the model."""

from collections.abc import Iterable


def cut_notice(cuts: Iterable[str], what: str = "What was asked") -> str | None:
    """Return a sentence without a full stop on what was cut, as `TokenizedExample.cut` has it; None where nothing was."""
    said = "; ".join(cuts)
    return f"{what} is too long, and was cut: {said}" if said else None
