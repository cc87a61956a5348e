"""Token ids with labels: which tokens carry loss, and what is kept of a sequence that is too long.

Labels are not shifted: the label of a token is its own id, or -100 for no loss, and the loss compares it with what the
model says at the token before. So a label at position 0 never counts.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Bool, Int64

NO_LOSS = -100

TokenIds = Int64[np.ndarray, " T"]


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Token ids and labels, both [T]; `notices` say what of the row they do not hold, or hold otherwise."""

    input_ids: TokenIds
    labels: TokenIds
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def n_targets(self) -> int:
        """Tokens that carry loss, once shifted."""
        return int(np.count_nonzero(self.labels[1:] != NO_LOSS))

    def truncate(self, max_length: int) -> Self:
        """At most `max_length` consecutive tokens, of which those that carry loss come first.

        Let the completion be what lies between the first and the last token with loss. If it fits, all of it is kept,
        with as much as possible of what precedes it: the prompt is cut on its left, special tokens included. If it
        does not, its beginning is kept and nothing in front of it, so that its first token carries no loss any more.
        A text, which carries loss throughout, thus keeps its beginning.
        """
        kept = self._kept(max_length)
        return replace(self, input_ids=self.input_ids[kept], labels=self.labels[kept])

    def cut(self, max_length: int) -> str | None:
        """What `truncate` cuts and by which rule, in words; None where it cuts nothing."""
        if len(self) <= max_length:
            return None
        start = self._kept(max_length).start
        behind = max(0, len(self) - start - max_length)
        return (
            f"{start} tokens in front and {behind} behind of {len(self)}: at most {max_length} are kept (recipe.max_length "
            "or the model's context), those that carry loss first"
        )

    def _kept(self, max_length: int) -> slice:
        targets = np.flatnonzero(self.labels != NO_LOSS)
        first, end = (int(targets[0]), int(targets[-1]) + 1) if len(targets) else (0, 0)
        start = min(first, max(0, end - max_length))
        return slice(start, start + max_length)


def with_loss_on(input_ids: TokenIds, carries_loss: Bool[np.ndarray, " T"]) -> LabelledTokens:
    """Tokens [T] that are their own labels where `carries_loss` [T]."""
    return LabelledTokens(input_ids, np.where(carries_loss, input_ids, NO_LOSS))
