"""The section [groups] of lorif.toml."""

from pydantic import BaseModel, ConfigDict, Field

from lorif_assets.config.content_hash import content_hash


class GroupSettings(BaseModel):
    """Influence summed over the training examples that share a value of their metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...] = Field(
        (),
        description="Columns of the training data's metadata (a source, a topic, a tag) by whose values influence is summed, "
        "in a scan of its own over all examples; empty: none, and no such scan.",
    )

    shrunk: bool = Field(
        True,
        description="Whether sums are of posterior means in place of the scores as they are stored: what is to be expected of "
        "each once the noise of projection, rank and codes is known, which a sum hears of all examples. The noise is measured "
        "on 128 examples and 16 queries, scored again by gradients that are hardly projected.",
    )

    @property
    def enabled(self) -> bool:
        """Whether there is any."""
        return bool(self.columns)

    def version(self, scores: str) -> str:
        """Return the version of sums of scores of a version."""
        return content_hash([scores, "groups", self.columns, *(["shrunk"] if self.shrunk else [])])
