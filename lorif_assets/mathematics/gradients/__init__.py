"""Projected gradients of single examples."""
