"""The curvatures that a recipe can name, and the fields that each adds to what a stage depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

CurvatureName = Literal["svd", "ekfac", "kfac", "adam"]
WHITENING_FIELDS = ("kfac_labels", "kfac_examples", "whitening_damping", "whitening_rank")


@dataclass(frozen=True)
class CurvatureFields:
    """The fields that one curvature adds to what each stage depends on; the fields of other curvatures are not hashed.

    `damping` names the field that holds its damping, if it has any. A curvature with `whitening_damping` has gradients
    whitened in K-FAC bases before they are factorised.
    """

    factors: tuple[str, ...]
    preconditioners: tuple[str, ...]
    scores: tuple[str, ...]
    damping: str | None
    reads_optimizer: bool = False
    """Whether it is made of the optimiser's state that a trainer left beside a checkpoint's weights."""

    @property
    def whitens(self) -> bool:
        """Whether gradients are whitened in K-FAC bases."""
        return "whitening_damping" in self.factors


_KRONECKER = CurvatureFields(
    factors=("bytes_per_example", "rank_by_layer", "fisher_share", *WHITENING_FIELDS),
    preconditioners=("fisher_damping",),
    scores=("axis_sizes",),
    damping="fisher_damping",
)
CURVATURE_FIELDS: Mapping[str, CurvatureFields] = {
    "svd": CurvatureFields(
        factors=(),
        preconditioners=("r", "oversample", "refinements", "damping_rule", "damping"),
        scores=("curvature_form",),
        damping="damping",
    ),
    "ekfac": _KRONECKER,
    "kfac": _KRONECKER,
    "adam": replace(_KRONECKER, reads_optimizer=True),
}
