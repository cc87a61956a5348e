"""The section [exact_scores] of lorif.toml."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lorif_assets.config.content_hash import content_hash


class ExactScoreSettings(BaseModel):
    """Leading examples scored again from their whole gradients: neither projected nor compressed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        False,
        description="Whether the leading examples of each query are ranked again, with everything else. It takes the passes of "
        "a fit of EK-FAC to `examples` and one over every listed example, and memory for whole gradients.",
    )
    first: int = Field(100, ge=1, description="Proponents and opponents of each query that are scored again.")
    examples: int = Field(
        1_024,
        ge=2,
        description="Training examples, drawn by `recipe.seed`, that EK-FAC's inverse of whole gradients is fitted to. Unused "
        "where the recipe whitens and projects nothing: its own inverse is of whole gradients.",
    )
    query_solver: Literal["ekfac", "cg"] = Field(
        "ekfac",
        description="What multiplies a query's gradient: EK-FAC's inverse; or conjugate gradients on the Gauss-Newton matrix "
        "of a sample, preconditioned by it, which costs `cg_rounds` times two passes over `cg_examples` for each query.",
    )
    cg_rounds: int = Field(
        2, ge=1, le=16, description="Rounds of conjugate gradients. Two or three are best; more fit the sample's noise."
    )
    cg_examples: int = Field(
        256,
        ge=1,
        description="Training examples, of those that EK-FAC is fitted to, whose Gauss-Newton matrix is taken.",
    )

    def version(self, scores: str) -> str:
        """Return the version of exact scores beside scores of a version."""
        solver = [self.query_solver, self.cg_rounds, self.cg_examples] if self.query_solver == "cg" else []
        return content_hash([scores, "exact", self.first, self.examples, *solver])
