"""Influcoder's bi-encoder: its settings, the texts it reads, how it is loaded and kept, and what teaches it."""
