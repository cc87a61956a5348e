"""The section [influcoder] of lorif.toml, hashed stage by stage as the recipe is."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.secrets import Place

if TYPE_CHECKING:
    from lorif_assets.mathematics.influcoder.distillation import DistillationConfig

_TARGET_FIELDS = (
    "teacher",
    "lora_rank",
    "lora_seed",
    "sketch_dim",
    "anchors",
    "pool",
    "held_out_anchors",
    "held_out_pool",
    "anchor_texts",
    "seed",
)
_DISTILLATION_FIELDS = (
    "block_anchors",
    "block_candidates",
    "hard_ratio",
    "alpha",
    "temperature",
    "epochs",
    "learning_rate",
    "seed",
)
_ENCODER_FIELDS = ("encoder", "encoder_length", *_DISTILLATION_FIELDS)


class InflucoderSettings(BaseModel):
    """Influence rankings distilled into a text encoder; the defaults are the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        False,
        description="Whether the encoder, the embeddings and their scores are kept up to date with everything else.",
    )
    encoder: Place = Field(
        "jhu-clsp/ettin-encoder-68m",
        description="The model to train: a folder that sentence-transformers can load, or a model on the Hugging Face hub, "
        "`org/name@revision`.",
    )
    encoder_length: int = Field(512, ge=8, description="Tokens of a text that the encoder reads, at most.")
    heads: bool = Field(
        False,
        description="Whether queries and examples each pass through a linear map of their own after the encoder, so that "
        "influence need not be symmetric.",
    )
    teacher: Literal["gradient_cosine", "lorif", "subset_losses"] = Field(
        "gradient_cosine",
        description="What is distilled: cosines of sketched LoRA gradients (as published); LoRIF scores by rank; or, by rank, "
        "how much lower a query's loss is under the evaluation's models that were retrained on an example than under the "
        "others. That needs queries as anchors, and many retrained subsets: `lorif evaluate` makes them.",
    )
    lora_rank: int = Field(16, ge=1, description="Rank of the untrained adapter whose gradients are taken.")
    lora_seed: int = Field(0, ge=0, description="Seed of that adapter and of the sketch.")
    sketch_dim: int = Field(65_536, ge=1, description="Buckets of the sketch of a gradient.")
    anchors: int = Field(500, ge=2, description="Queries, or examples in their place, to distil on.")
    pool: int = Field(1_000, ge=2, description="Training examples to distil on.")
    held_out_anchors: int = Field(100, ge=2, description="Further anchors, which only measure the agreement.")
    held_out_pool: int = Field(200, ge=2, description="Further training examples, which only measure the agreement.")
    anchor_texts: Literal["auto", "queries", "examples"] = Field(
        "auto",
        description="Where anchors come from: query sets, training examples that are kept out of the pool, or queries "
        "where there are enough of them.",
    )
    growth: float = Field(
        2.0, gt=1, description="Anchors and pool are drawn again once the training data has grown by this factor."
    )
    block_anchors: int = Field(8, ge=1, description="k: anchors of one training step.")
    block_candidates: int = Field(16, ge=2, description="m: pool texts of one training step.")
    hard_ratio: float = Field(
        0.0, ge=0, le=1, description="Share of a step's pool texts drawn from the highest targets."
    )
    alpha: float = Field(
        0.5, ge=0, le=1, description="Weight of the Pearson term of the loss; the KL term has the rest."
    )
    temperature: float = Field(0.05, gt=0, description="tau of the KL term.")
    epochs: int = Field(8, ge=1, description="Passes over the anchors.")
    learning_rate: float = Field(5e-5, gt=0, description="Peak learning rate.")
    warm_start: bool = Field(
        True, description="Train on from the encoder of the checkpoint before, where there is one."
    )
    seed: int = Field(0, ge=0, description="Seed of the sample, its split and the training.")
    exact_up_to: int = Field(
        2_000_000,
        ge=0,
        description="Examples up to which a query is compared with every embedding; beyond, an approximate index by faiss "
        "finds the nearest and the farthest.",
    )
    probed_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Share of that index's cells that a search looks into: more finds more, and is slower.",
    )
    evaluation_seeds: tuple[int, ...] = Field(
        (0, 1, 2),
        description="Seeds of the splits and trainings that the agreement is measured over; none: no measurement.",
    )

    def targets_hash(self, recipe: Recipe) -> str:
        """Hash of what influence targets depend on besides texts and weights."""
        lorif = recipe.preconditioner_hash if self.teacher == "lorif" else None
        return content_hash([self._fields(_TARGET_FIELDS), recipe.model_dtype, recipe.tokens_version, lorif])

    def distillation_hash(self, recipe: Recipe) -> str:
        """Hash of what the trained encoder depends on besides texts and weights."""
        fields = (*_ENCODER_FIELDS, "heads") if self.heads else _ENCODER_FIELDS
        return content_hash([self._fields(fields), self.targets_hash(recipe)])

    @property
    def search_hash(self) -> str:
        """Hash of what decides which examples a search finds."""
        return content_hash([self.exact_up_to, self.probed_share])

    @property
    def agreement_hash(self) -> str:
        """Hash of what the measurement adds."""
        return content_hash(list(self.evaluation_seeds))

    def distillation(self, seed: int) -> "DistillationConfig":
        """Return how the encoder is trained, with a seed."""
        from lorif_assets.mathematics.influcoder.distillation import DistillationConfig

        return DistillationConfig(**{**self._fields(_DISTILLATION_FIELDS), "seed": seed})

    def _fields(self, names: tuple[str, ...]) -> dict[str, Any]:
        return self.model_dump(mode="json", include=set(names))
