"""Influcoder, the second method, on the lake: an encoder that is distilled from influences."""
