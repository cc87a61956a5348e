"""Whether scores predict what the model does: mathematics of the evaluation, arrays in and figures out."""
