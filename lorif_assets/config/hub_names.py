"""Names of models on the hub as settings write them without `hf://`."""

import re

MODELS_WITHOUT_OWNER = frozenset({"distilgpt2", "gpt2", "gpt2-large", "gpt2-medium", "gpt2-xl", "openai-gpt"})
"""Language models whose names on the hub are older than organisations there."""
_PLAIN = re.compile(rf"(?:(?!\.)[\w.-]+/[\w.-]+|{'|'.join(sorted(MODELS_WITHOUT_OWNER))})(?:@\S+)?")


def is_plain_name(text: str) -> bool:
    """Whether a text can be `org/name` or `gpt2`, with `@revision` or not: a model on the hub where no such folder is."""
    return _PLAIN.fullmatch(text) is not None
