"""Tiny byte-level tokenizers, trained on a few lines; they encode any text."""

from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lorif_assets.data.content.labels import LabelledTokens, with_loss_on

LINES = ["hello world", "the quick brown fox", "how are you today", "the answer is the question"]
SPECIAL_TOKENS = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


def sequence(mask: list[bool]) -> LabelledTokens:
    """Token ids that are all different, so that a token tells where it was."""
    return with_loss_on(np.arange(10, 10 + len(mask)), np.array(mask))


def make_tokenizer(
    template: str | None = None, *, chat_template: str | dict[str, str] | None = None, trim_offsets: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that writes special tokens as `template` says ("<s> $A </s>"), or none."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    if template is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
        )
    elif trim_offsets:
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.fixture(scope="session")
def plain() -> PreTrainedTokenizerFast:
    """A tokenizer without special tokens around a text, as GPT-2's."""
    return make_tokenizer()
