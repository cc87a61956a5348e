"""Recipes tried on a sample: what quality costs in bytes."""
