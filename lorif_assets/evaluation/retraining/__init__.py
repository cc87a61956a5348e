"""Models retrained on subsets of the training data, and what they lose."""
