"""Queries as gradients, and the inverse curvature applied to them."""
