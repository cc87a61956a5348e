"""Models retrained without some of the training data, and what they say of the queries: the ground truth."""
