"""Gradients of examples, factorised batch by batch."""
