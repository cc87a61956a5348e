"""The files of checkpoints: which ones a model, an adapter and a tokenizer are, and what is refused of them."""
