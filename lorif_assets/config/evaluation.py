"""The section [evaluation] of lorif.toml."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lorif_assets.config.methods import MethodName, Need, default_methods, methods_on_request
from lorif_assets.config.secrets import Place

_FEWEST_SUBSETS = 3


class EvaluationSettings(BaseModel):
    """How scores are checked against retraining."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trainer: str | None = Field(
        None,
        description="The training recipe as a Python callable, 'package.module:function', called with a Parquet file of "
        "the examples to train on, a seed and the directory to write the checkpoint to.",
    )
    command: tuple[str, ...] = Field(
        (),
        description="The training recipe as a command instead; {examples}, {seed} and {output} in its words are replaced.",
    )
    trainer_version: str = Field(
        "1", description="Change it when the training recipe changes: every model is then retrained."
    )
    directory: str = Field("retrained", description="Where retrained models are written while they are needed.")
    keep_models: bool = Field(
        False,
        description="Keep retrained models: a new query set then needs no retraining, at the cost of their disk space.",
    )
    subsets: int = Field(50, ge=3, description="Random subsets to retrain on; more of them narrow the intervals.")
    share: float = Field(0.5, gt=0, lt=1, description="Share of the training data in each subset.")
    seeds: int = Field(2, ge=1, description="Models per subset, whose losses are averaged; one seed hides the noise.")
    seed: int = Field(0, ge=0, description="Seed of the subsets, of retraining and of controls.")
    methods: tuple[MethodName, ...] = Field(
        default_methods(),
        description="Methods to check against retraining: LoRIF and those it is compared with. Not by default: "
        f"{methods_on_request()}.",
    )
    checkpoints: Literal["newest", "active"] = Field(
        "newest",
        description="Where known sources are looked for: at the newest active checkpoint, to which models that are retrained "
        'correspond; or at every active one, "active": what a fine-tuned model learned by heart shows at earlier ones.',
    )
    text_encoder: Place | None = Field(
        None,
        description="What the method `embeddings` compares texts by: a folder that sentence-transformers can load, or a "
        "model on the Hugging Face hub. It reads `influcoder.encoder_length` tokens of a text.",
    )
    ground_truth: Place | None = Field(
        None,
        description="A directory with members.parquet (subset, example_id) and losses.parquet (subset, seed, query_set, "
        "query_id, loss) of models that were retrained elsewhere; then nothing is retrained for the subsets.",
    )
    tail_patch_k: int = Field(10, ge=1, description="Proponents per query that tail-patch takes a step on.")
    tail_patch_learning_rate: float = Field(1e-4, gt=0, description="Learning rate of that one step (Adam's first).")
    source_field: str = Field(
        "sources", description="Metadata field of queries with the ids of the examples that taught the completion."
    )
    topic_fields: tuple[str, str] = Field(
        ("topics", "topic"),
        description="Where no sources are known: a field of queries with a list of topics, and a field of examples with "
        "their topic. Examples on a query's topics count as its sources.",
    )
    removal_query_sets: tuple[str, ...] = Field(
        (), description="Query sets whose proponents, those of all queries together, are removed before retraining."
    )
    removal_methods: tuple[MethodName, ...] = Field(
        (MethodName.LORIF, MethodName.BM25, MethodName.RANDOM), description="Methods that choose what is removed."
    )
    removal_shares: tuple[float, ...] = Field(
        (0.01, 0.03, 0.1),
        description="Shares of the training data to remove; one retraining per share, method and seed. The smallest is that "
        "of the query loss difference.",
    )
    sorted_subsets: int = Field(
        0,
        ge=0,
        description="Runs of consecutive ranks that the examples of each removal method's ranking are cut into; one model is "
        "retrained without each, per method and seed, for the LDS on sorted subsets. 0: none; else 3 or more.",
    )
    removal_seeds: int = Field(1, ge=1, description="Models per removal.")
    selection_query_sets: tuple[str, ...] = Field(
        (),
        description="Query sets on whose proponents alone, those of all queries together, models are trained: what "
        "`lorif select` is worth beside other ways to choose as many examples.",
    )
    selection_methods: tuple[MethodName, ...] = Field(
        (MethodName.LORIF, MethodName.BM25, MethodName.RANDOM), description="Methods that choose what is trained on."
    )
    selection_shares: tuple[float, ...] = Field(
        (0.1,), description="Shares of the training data to train on; one model per share, method and seed."
    )
    selection_seeds: int = Field(3, ge=1, description="Models per selection, whose losses are averaged.")
    bootstrap: int = Field(1_000, ge=100, description="Bootstrap draws of each interval.")

    @model_validator(mode="after")
    def _one_way_to_train(self) -> Self:
        if self.trainer and self.command:
            raise ValueError("name a `trainer` or a `command`, not both")
        return self

    @model_validator(mode="after")
    def _sorted_subsets_have_an_order(self) -> Self:
        if 0 < self.sorted_subsets < _FEWEST_SUBSETS:
            raise ValueError(f"`sorted_subsets` is {self.sorted_subsets}; set {_FEWEST_SUBSETS} or more, or 0 for none")
        return self

    @model_validator(mode="after")
    def _embeddings_have_an_encoder(self) -> Self:
        used = [
            method
            for method in (*self.methods, *self.removal_methods, *self.selection_methods)
            if method.definition.needs is Need.TEXT_ENCODER
        ]
        if used and self.text_encoder is None:
            raise ValueError(f"the method `{used[0]}` needs an encoder: set `text_encoder`")
        return self
