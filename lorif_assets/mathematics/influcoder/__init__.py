"""Influences distilled into an encoder."""
