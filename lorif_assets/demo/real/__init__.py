"""The demo on a real language model: one from a Python package, fine-tuned here on chats that the demo makes."""
