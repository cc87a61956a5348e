"""The EOS behind a text or completion."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lorif_assets.data.content.labels import LabelledTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_EOS = "the tokenizer has no EOS, so none is appended (recipe.append_eos)"


def with_eos(tokens: LabelledTokens, tokenizer: "PreTrainedTokenizerBase") -> LabelledTokens:
    """Tokens that end in the tokenizer's EOS, which carries loss; unchanged if they do already, noticed if it has none."""
    eos = tokenizer.eos_token_id
    if eos is None:
        return replace(tokens, notices=(*tokens.notices, NO_EOS))
    if len(tokens) and tokens.input_ids[-1] == eos:
        return tokens
    return replace(tokens, input_ids=np.append(tokens.input_ids, eos), labels=np.append(tokens.labels, eos))
