"""Questions to the influences that are stored: lists, examples, groups, checkpoints, selections of training data."""
