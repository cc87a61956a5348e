"""Token ids with labels: which tokens carry loss.

Labels are not shifted: the label of a token is its own id, or -100 for no loss, and the loss compares it with what the
model says at the token before. So a label at position 0 never counts.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

NO_LOSS = -100

TokenIds = Int64[np.ndarray, " T"]


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Token ids and labels, both [T].

    `notices` say what of the row they do not hold, or hold otherwise; `cut` what was cut of one that is too long, and by
    which rule.
    """

    input_ids: TokenIds
    labels: TokenIds
    notices: tuple[str, ...] = ()
    cut: str | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def n_targets(self) -> int:
        """Tokens that carry loss, once shifted."""
        return int(np.count_nonzero(self.labels[1:] != NO_LOSS))


def with_loss_on(input_ids: TokenIds, carries_loss: Bool[np.ndarray, " T"]) -> LabelledTokens:
    """Tokens [T] that are their own labels where `carries_loss` [T]."""
    return LabelledTokens(input_ids, np.where(carries_loss, input_ids, NO_LOSS))
