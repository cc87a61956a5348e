"""Scores of queries against stored factors: scans, merges, averages, and their rows."""
