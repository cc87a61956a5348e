"""The comparison of a query set's scores across checkpoints."""
