"""The names of the methods."""

from enum import StrEnum


class MethodName(StrEnum):
    """A way to score training examples for queries."""

    LORIF = "lorif"  # as configured, from the stored factors
    LORIF_PAPER = "lorif_paper"  # in the form of the paper, at the same projections
    DENSE_LOGRA = "dense_logra"  # the exact inverse at the same projections, damping 0.1
    TRAK = "trak"  # a single-checkpoint score in the manner of TRAK
    GRADIENT_DOT = "gradient_dot"
    GRADIENT_COSINE = "gradient_cosine"
    INFLUCODER = "influcoder"  # its encoder's embeddings, where `influcoder.enabled`
    REPRESENTATION = "representation"  # cosine of mean-pooled hidden states
    BM25 = "bm25"
    EKFAC = "ekfac"  # by the library kronfluence, without projection; needs the extra `ekfac`
    RANDOM = "random"
