"""A tiny GPT-2 and Llama with random weights, and examples for them."""

from tests.mathematics.conftest import examples, gpt2, llama, one_thread

__all__ = ["examples", "gpt2", "llama", "one_thread"]
