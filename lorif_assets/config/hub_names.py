"""Names on the hub that no organisation is in."""

MODELS_WITHOUT_OWNER = frozenset({"distilgpt2", "gpt2", "gpt2-large", "gpt2-medium", "gpt2-xl", "openai-gpt"})
"""Language models whose names on the hub are older than organisations there, as adapters on them give these."""
