"""The demo's material: a corpus from Python's own documentation, a small model trained on it, and queries."""
