"""The section [token_scores] of lorif.toml."""

from pydantic import BaseModel, ConfigDict, Field

from lorif_assets.config.content_hash import content_hash


class TokenScoreSettings(BaseModel):
    """What each token of an example, and of a query, contributed to leading scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        False,
        description="Whether scores by token are kept up to date with everything else. They take the model's passes over every "
        "listed pair of query and example, about twice the time of scoring these pairs from uncompressed gradients.",
    )
    top_k: int = Field(10, ge=1, description="Proponents and opponents of each query whose tokens are scored.")

    def version(self, scores: str) -> str:
        """Return the version of scores by token beside scores of a version."""
        return content_hash([scores, "tokens", self.top_k])
