"""What the page calls the methods, and what each of them is."""

from collections.abc import Mapping

from lorif_assets.config.method_names import MethodName

_TITLES: Mapping[str, tuple[str, str]] = {
    MethodName.LORIF: ("LoRIF", "as configured, from the stored low-rank factors"),
    MethodName.LORIF_PAPER: ("LoRIF of the paper", "rank 1, BF16, truncated, at the same projections"),
    MethodName.DENSE_LOGRA: ("dense LoGRA", "the exact inverse at the same projections"),
    MethodName.TRAK: ("TRAK-style", "a single-checkpoint score in the manner of TRAK"),
    MethodName.GRADIENT_DOT: ("gradient dot product", "no curvature"),
    MethodName.GRADIENT_COSINE: ("gradient cosine", "no curvature, no magnitude"),
    MethodName.INFLUCODER: ("Influcoder", "cosine of a text encoder trained on influences"),
    MethodName.REPRESENTATION: ("representations", "cosine of mean-pooled hidden states"),
    MethodName.BM25: ("BM25", "shared words; no model"),
    MethodName.EKFAC: ("EK-FAC", "by kronfluence, without projection; keeps no index"),
    MethodName.RANDOM: ("random", "the floor"),
    "none": ("nothing", "retraining on everything"),
}


def method_title(method: str) -> str:
    """Return the name to print; that of a method unknown here is its own."""
    return _TITLES[method][0] if method in _TITLES else method.replace("_", " ")


def method_explained(method: str) -> str:
    """Return what the method is in a few words, or nothing of one unknown here."""
    return _TITLES[method][1] if method in _TITLES else ""
