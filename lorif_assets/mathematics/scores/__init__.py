"""Scores of stored factors for preconditioned queries, and how two rankings differ."""
