"""How the leading training examples of a query move from checkpoint to checkpoint, as a table and as a page."""
