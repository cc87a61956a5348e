"""Influcoder (arXiv 2606.13668): influence rankings distilled into a text encoder. Torch and numpy in, tensors out."""
