"""Pairs of query and example, token by token."""
