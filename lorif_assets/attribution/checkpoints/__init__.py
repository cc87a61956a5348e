"""Checkpoints that are attributed: which ones, what they weigh in averages, and their loaded models."""
