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

    @property
    def enabled(self) -> bool:
        """Whether there is any."""
        return bool(self.columns)

    def version(self, scores: str) -> str:
        """Return the version of sums of scores of a version."""
        return content_hash([scores, "groups", self.columns])
