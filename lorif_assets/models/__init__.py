"""Checkpoints and devices: finding, hashing, loading, spreading, leasing."""
