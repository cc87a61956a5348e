"""Scores by whole gradients, and how far stored ones are from them."""
