"""What attributing a checkpoint will cost, and whether it can be done, before anything is loaded."""
