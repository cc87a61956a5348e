"""Ways to score training examples for queries, compared by the evaluation."""
