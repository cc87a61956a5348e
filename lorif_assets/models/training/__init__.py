"""What a trainer leaves beside the weights: the optimiser's state and learning rates."""
