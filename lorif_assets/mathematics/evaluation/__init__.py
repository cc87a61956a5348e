"""How well scores predict what retraining does."""
