"""The attribution report of a query set at a checkpoint."""
