"""Checkpoints that are not on this machine: a registry, an object store, the hub."""
