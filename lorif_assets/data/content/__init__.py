"""What one example or query says, and which columns say it: checked, in one form, before any tokenizer."""
