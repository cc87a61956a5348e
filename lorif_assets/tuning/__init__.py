"""`lorif tune`: recipes tried on a sample of the data."""
