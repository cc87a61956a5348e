"""Between a user's data files and token ids: examples in one form, and their tokens and labels."""
