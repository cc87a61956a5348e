"""The recipe: everything that the scores depend on besides the data and the weights, hashed stage by stage."""

import json
from hashlib import blake2b
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What each stage's result depends on. A stage's hash covers the stages before it, so a new `r` or damping leaves the
# factors as they are.
_FACTOR_FIELDS = (
    "include_layers",
    "exclude_layers",
    "projection_factor",
    "seed",
    "rank",
    "factor_dtype",
    "model_dtype",
    "max_length",
)
_PRECONDITIONER_FIELDS = ("r", "oversample", "refinements", "damping_rule", "damping")
_SCORE_FIELDS = ("curvature_form", "top_k")
_RECALL_FIELDS = ("recall", "candidates", "recall_agreement")


class Recipe(BaseModel):
    """How influence is computed. The defaults are safe; every field changes the scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    include_layers: tuple[str, ...] = Field(
        (), description="Shell-style patterns of layers to track; empty: every linear weight of the blocks."
    )
    exclude_layers: tuple[str, ...] = Field((), description="Patterns of layers that are not tracked.")
    projection_factor: int = Field(
        8,
        ge=1,
        description="f: a layer's widths are divided by it. Smaller: better scores, more bytes. 1: no projection.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of projections and of the curvature's starting basis.")
    rank: int = Field(1, ge=1, le=256, description="c: rank of each example's gradient factors in one layer.")
    factor_dtype: Literal["bf16", "fp32"] = Field("bf16", description="Number format of stored factors.")
    model_dtype: Literal["float32", "bfloat16", "as_saved"] = Field(
        "float32", description="Floating type of the model's forward and backward passes; projections are always FP32."
    )
    max_length: int = Field(
        512, ge=2, description="Tokens of an example at the most; longer ones are cut, the completion kept first."
    )
    r: int = Field(256, ge=0, description="Rank of each layer's curvature. 0: no curvature, only its mean.")
    oversample: int | None = Field(
        None, ge=0, description="Columns of the curvature's basis beyond r; default: as many as r, at least 32."
    )
    refinements: int = Field(
        0, ge=0, le=4, description="Further passes over the factors that sharpen the curvature's basis."
    )
    damping_rule: Literal["trace", "leading", "absolute"] = Field(
        "trace",
        description="What `damping` multiplies: the mean eigenvalue tr H / D; the mean of the leading r + 10 "
        "eigenvalues (the paper's rule, with 0.1); or 1.",
    )
    damping: float = Field(1.0, gt=0, allow_inf_nan=False, description="Damping, in multiples of `damping_rule`.")
    curvature_form: Literal["tail_corrected", "truncated"] = Field(
        "tail_corrected", description="What stands for the cut-off eigenvalues: their mean, or nothing (the paper's)."
    )
    top_k: int | Literal["all"] = Field(
        100, description='Proponents and opponents kept per query; "all" writes the score of every pair.'
    )

    recall: Literal["none", "influcoder"] = Field(
        "none",
        description="What proposes the examples that are scored: none, so that all are; or Influcoder's encoder, which "
        "needs `influcoder.enabled`. Its proposals are read and scored alone.",
    )
    candidates: int = Field(
        1_000, ge=1, description="Examples proposed per query and side (likely proponents, likely opponents)."
    )
    recall_agreement: float = Field(
        0.1,
        ge=-1,
        le=1,
        description="Spearman correlation of encoder and exact scores on random examples below which all are scored.",
    )

    @model_validator(mode="after")
    def _top_k_is_positive(self) -> Self:
        if self.top_k != "all" and self.top_k < 1:
            raise ValueError(f'`top_k` is a positive number or "all", found {self.top_k}')
        return self

    @model_validator(mode="after")
    def _recall_lists_the_best(self) -> Self:
        if self.recall != "none" and self.top_k == "all":
            raise ValueError(
                '`recall` scores proposals only, `top_k = "all"` asks for every score: choose one of the two'
            )
        return self

    @model_validator(mode="after")
    def _leading_eigenvalues_exist(self) -> Self:
        if self.damping_rule == "leading" and self.basis_width == 0:
            raise ValueError('`damping_rule = "leading"` needs leading eigenvalues: raise `r` or `oversample` above 0')
        return self

    @property
    def basis_width(self) -> int:
        """Columns k of the curvature's basis, before a layer's D bounds it."""
        if self.oversample is not None:
            return self.r + self.oversample
        # Measured against the exact inverse: as good as one refinement with ten more columns, in one pass less.
        return self.r + max(self.r, 32) if self.r else 0

    @property
    def factor_hash(self) -> str:
        """Hash of the fields that gradient factors depend on."""
        return self._hash(_FACTOR_FIELDS)

    @property
    def preconditioner_hash(self) -> str:
        """Hash of the fields that preconditioners depend on, those of the factors included."""
        return self._hash(_FACTOR_FIELDS + _PRECONDITIONER_FIELDS)

    @property
    def score_hash(self) -> str:
        """Hash of every field."""
        recall = _RECALL_FIELDS if self.recall != "none" else ()
        return self._hash(_FACTOR_FIELDS + _PRECONDITIONER_FIELDS + _SCORE_FIELDS + recall)

    def _hash(self, fields: tuple[str, ...]) -> str:
        return content_hash(self.model_dump(mode="json", include=set(fields)))


def content_hash(content: object) -> str:
    """Return the hash of anything that JSON can hold; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()
