"""From content to token ids with labels, by a checkpoint's tokenizer."""
