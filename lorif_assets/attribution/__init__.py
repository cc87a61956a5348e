"""The mathematics of LoRIF (arXiv 2601.21929): torch in, tensors out; no I/O, no Dagster.

Symbols: N training examples, Q queries, T tokens; per tracked layer I and O are input and output width, d1 and d2 the
projected widths, D = d1 d2, c the rank of the gradient factors, r the rank of the curvature.
"""
