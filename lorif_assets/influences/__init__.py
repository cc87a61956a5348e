"""Questions to the influences that are stored: lists, examples, groups, checkpoints. They read tables, and compute nothing."""
