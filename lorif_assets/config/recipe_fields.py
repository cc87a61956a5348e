"""The fields of the recipe, their defaults, and which of them contradict one another."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lorif_assets.config.curvature_fields import CURVATURE_FIELDS, CurvatureFields, CurvatureName
from lorif_assets.config.presets import AUTO, with_preset

TruncationRule = Literal["keep_start", "keep_end", "drop_early_turns", "completion_first"]
"""How an input that is too long is cut (docs/sources.md: inputs that are too long)."""

# What the date is to chat templates: that which those of Llama 3 write where they are not told one.
TEMPLATE_DATE = date(2024, 7, 26)


class RecipeFields(BaseModel):
    """The fields, and what some of them come to without the others.

    The string "paper" stands for the recipe whose only field is `preset = "paper"`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["auto", "whitened", "paper"] = Field(
        AUTO,
        description='Where fields that are not set take their values from: "auto", the defaults below, which fit widths and '
        'ranks to the model; "whitened", the default of before, with every side divided by 8 and a rank of 16; or "paper", '
        'LoRIF as it was published (`recipe = "paper"` in place of this whole section means the same).',
    )
    track: Literal["weights", "adapter"] = Field(
        "weights",
        description="What is tracked of a checkpoint that is an adapter: all layers, with the adapter merged into the base "
        "model's weights; or a LoRA adapter's own matrices A and B, whose sides of its rank are never projected.",
    )
    include_layers: tuple[str, ...] = Field(
        (),
        description="Shell-style patterns of layers to track; empty: every linear weight of the blocks, and of a small model "
        "(up to 2,097,152 such weights, 8,192 tokens) the LM head, where `max_width` is left to the model.",
    )
    exclude_layers: tuple[str, ...] = Field((), description="Patterns of layers that are not tracked.")
    projection_factor: int = Field(
        8,
        ge=1,
        description="In place of `max_width`: f, by which a layer's widths are divided. Smaller: better scores, more bytes. "
        "1: no projection.",
    )
    max_width: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        AUTO,
        description="Sides of layers that are wider than this are projected to this width, the others not at all. Narrow "
        'layers stay whole, and memory is bounded for every model. "auto": the largest of 64, 128, 256 and 512 at which the '
        "bytes of an example pay for several components of every layer, or for a small model the one that agrees best with "
        "exact EK-FAC on a sample; never below 64. `projection_factor` takes its place where it is set.",
    )
    max_factor: int | None = Field(
        None,
        ge=1,
        description="With `max_width`: no side is divided by more than this, however wide it is. Default: 4, of larger models "
        "8, where the model decides the width; otherwise no bound.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of projections and of the curvature's starting basis.")
    rank: int = Field(
        16,
        ge=1,
        le=256,
        description="In place of `bytes_per_example`: c, the rank of each example's gradient factors in one layer. 16 "
        "components of signs take the bytes of one in BF16.",
    )
    rank_by_layer: bool = Field(
        True,
        description="ekfac, kfac, adam: spend the bytes that `rank` takes across all layers where components are worth most.",
    )
    bytes_per_example: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        AUTO,
        description="Bytes of an example's factors across all layers, spent where components are worth most. Needs a curvature "
        'with bases: ekfac, kfac or adam. "auto": a thousandth of the bytes of the tracked parameters in BF16, for at most 16 '
        "components of every layer, but at least 1,600. `rank` takes its place where it is set.",
    )
    factor_dtype: Literal["bf16", "fp32", "int8", "int4", "sign"] = Field(
        "sign",
        description="Number format of stored factors. int8 and int4 lose next to nothing; sign keeps one bit per number "
        "and a size per component: spend what it saves on `rank`.",
    )
    factor_rounds: int | None = Field(
        None,
        ge=1,
        le=16,
        description="Rounds of subspace iteration that find a gradient's leading components; default: exact ones by LAPACK on "
        "a CPU, 4 rounds on a GPU, which agree to rounding where singular values decay. With a number, every device iterates: "
        "of gradients without structure 3 keep 4 % less than the best, 4 rounds 2 %, 6 rounds 0.7 %.",
    )
    model_dtype: Literal["float32", "bfloat16", "as_saved"] = Field(
        "float32", description="Floating type of the model's forward and backward passes; projections are always FP32."
    )
    tf32: bool = Field(
        False,
        description="Whether a GPU may multiply FP32 matrices in TF32, the model's own included: 8 times faster, with 3 digits "
        "in place of 7. It changes nothing on a CPU, nor of projections, which are exact.",
    )
    max_length: int | None = Field(
        None,
        ge=2,
        description="Tokens of an example, at most; default: the model's context, up to 2,048. Set what the training used.",
    )
    truncation: TruncationRule = Field(
        "keep_start",
        description="How longer examples are cut: keep the start, as trainers do; keep the end, behind the special tokens "
        "in front; drop early exchanges of a chat whole. Or completion_first, which keeps neither special tokens nor the "
        "question: for lakes computed before there was a choice. Queries are cut by drop_early_turns, unless it is "
        "completion_first.",
    )
    prompt_completion: Literal["joint", "apart"] = Field(
        "joint",
        description="How a prompt and its completion become tokens: as one text, as trainers do; or apart and then joined, "
        "for models that were trained so.",
    )
    append_eos: bool = Field(
        True,
        description="Whether the tokenizer's EOS follows each text and completion of the training data that does not end in "
        "it, and carries loss, as trainers do. Chats are left to their template, and token ids and queries as they are. Set "
        "it to false where the training appended none.",
    )
    template_date: date = Field(
        TEMPLATE_DATE,
        description="What chat templates that write today's date (`strftime_now`) are told it is, so that tokens do not "
        "change from day to day. Another date changes the tokens of such templates only, but computes every checkpoint again.",
    )
    curvature: CurvatureName = Field(
        "ekfac",
        description="The layers' curvature: EK-FAC's diagonal in Kronecker-factored bases, with gradients whitened before "
        "they are factorised; leading eigenpairs of the factorised gradients (svd, the paper's); or, in the same bases, "
        "K-FAC's own diagonal (kfac), which needs a sample of the examples alone, or the roots of Adam's second moments "
        "(adam), from `optimizer.pt` beside the weights.",
    )
    kfac_examples: int = Field(
        4_096, ge=2, description="ekfac, kfac, adam: training examples, drawn by `seed`, that bases are fitted to."
    )
    kfac_labels: Literal["data", "model"] = Field(
        "data",
        description="ekfac, kfac, adam: labels that the bases are fitted with: the data's, or drawn from the model.",
    )
    whitening_damping: float = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="ekfac, kfac, adam: damping of the whitening, in multiples of the mean eigenvalue of either side.",
    )
    whitening_rank: int | None = Field(
        None,
        ge=1,
        description="ekfac, kfac, adam: eigenvectors that sides more than twice as wide are whitened by, with one number in "
        "place of the other eigenvalues; default: all of them. Without projection 64 is far cheaper on wide layers, at "
        "1 to 2 % of LDS.",
    )
    fisher_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="ekfac: share of the examples whose gradients the eigenvalues are measured on, chosen by a hash of their "
        "tokens, so that sums stay exact as data change. Of thousands of examples 0.25 or 0.0625 lose nothing that LDS can "
        "see, and spare the others' dense gradients where that is the cheaper way.",
    )
    fisher_damping: float = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="ekfac, kfac, adam: damping, in multiples of a layer's mean eigenvalue.",
    )
    axis_sizes: bool = Field(
        False,
        description="ekfac, kfac, adam, of signs: whether queries know how large whitened gradients are along each axis, which "
        "signs do not say. It costs nothing; on a GPT-2 it gained 0.03 to 0.04 of LDS, on a Llama nothing.",
    )
    r: int = Field(256, ge=0, description="svd: rank of each layer's curvature. 0: no curvature, only its mean.")
    oversample: int | None = Field(
        None, ge=0, description="svd: columns of the curvature's basis beyond r; default: as many as r, at least 32."
    )
    refinements: int = Field(
        0, ge=0, le=4, description="svd: further passes over the factors that sharpen the curvature's basis."
    )
    damping_rule: Literal["trace", "leading", "absolute"] = Field(
        "trace",
        description="svd: what `damping` multiplies: the mean eigenvalue tr H / D; the mean of the leading r + 10 "
        "eigenvalues (the paper's rule, with 0.1); or 1.",
    )
    damping: float = Field(1.0, gt=0, allow_inf_nan=False, description="svd: damping, in multiples of `damping_rule`.")
    curvature_form: Literal["tail_corrected", "truncated"] = Field(
        "tail_corrected",
        description="svd: what replaces the eigenvalues that are cut off: their mean, or nothing (the paper's).",
    )
    query_rank: int | None = Field(
        None,
        ge=1,
        description="Rank to which each layer's preconditioned query is reduced; default: none, it stays whole. Without "
        "projection, 32 scans many times faster and holds far more queries in memory; the error that this makes is in the "
        "scores' metadata.",
    )
    top_k: int | Literal["all"] = Field(
        100, description='Proponents and opponents kept per query; "all" writes the score of every pair.'
    )
    added_data: Literal["exact", "merged"] = Field(
        "exact",
        description="How scores follow added shards: by a new scan of all shards, or by one of the new shards alone, merged "
        "into the last full scan where a probe of 64 examples shows that the preconditioner moved little.",
    )
    merge_tolerance: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Largest relative change of a query's probe scores, apart from a common factor, that allows merging.",
    )

    averaged_checkpoints: int | Literal["auto", "spread"] | tuple[str, ...] = Field(
        "auto",
        description='Checkpoints whose scores are averaged: "auto", of a fine-tune whose base model is active those that '
        '"spread" names, of other models the one in question; how many, the one in question and the active ones before it; '
        '"spread", the earliest active one (the base model of a fine-tune), one halfway and the one in question; or the names '
        'of those that are averaged with it. More than one by number, names or "spread" needs `active.checkpoints` to be '
        '"all", or names.',
    )
    checkpoint_weights: Literal["scaled", "equal", "source"] = Field(
        "scaled",
        description="How averaged checkpoints count: each one's scores are divided by their spread, and weighted by the "
        "learning rate where the trainer's state tells it; the scores as they are, equally; or as the segments of one "
        "training run (source), which the gradient of a query at the last one is carried back through. That needs a "
        "curvature with bases, ekfac or kfac, and is meant for three checkpoints or more.",
    )
    source_time: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description='With `checkpoint_weights = "source"`: how long a segment trains, on average, in units of one over a '
        "layer's mean eigenvalue. It damps as `fisher_damping` of one over it does.",
    )
    recall: Literal["none", "influcoder"] = Field(
        "none",
        description="What proposes the examples to score: nothing, so that all are scored; or Influcoder's encoder, so that "
        "its proposals alone are read and scored. The encoder needs `influcoder.enabled`.",
    )
    candidates: int = Field(
        1_000, ge=1, description="Examples proposed per query and side (likely proponents, likely opponents)."
    )
    recall_agreement: float = Field(
        0.1,
        ge=-1,
        le=1,
        description="Spearman correlation of encoder scores with exact ones, on random examples, below which all examples "
        "are scored.",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_fields_that_are_not_set(cls, fields: object) -> object:
        if isinstance(fields, str):
            fields = {"preset": fields}
        if isinstance(fields, Mapping):
            return with_preset(
                fields, [name for name, of_curvature in CURVATURE_FIELDS.items() if of_curvature.whitens]
            )
        return fields

    @model_validator(mode="after")
    def _top_k_is_positive(self) -> Self:
        if self.top_k != "all" and self.top_k < 1:
            raise ValueError(f'`top_k` is a positive number or "all", found {self.top_k}')
        if self.top_k == "all" and self.added_data == "merged":
            raise ValueError('`added_data = "merged"` keeps extremes only: set `top_k` to a number')
        return self

    @model_validator(mode="after")
    def _recall_lists_the_best(self) -> Self:
        if self.recalls and self.top_k == "all":
            raise ValueError(
                '`recall` scores proposals only, `top_k = "all"` asks for every score: choose one of the two'
            )
        return self

    @model_validator(mode="after")
    def _some_checkpoint_is_averaged(self) -> Self:
        chosen = self.averaged_checkpoints
        if chosen == () or (isinstance(chosen, int) and chosen < 1):
            raise ValueError(
                f'`averaged_checkpoints` is "auto", a positive number, "spread" or a list of names, found {chosen!r}'
            )
        return self

    @model_validator(mode="after")
    def _averages_are_of_full_scans(self) -> Self:
        if self.averages and (self.recalls or self.added_data == "merged"):
            raise ValueError(
                "`averaged_checkpoints` other than 1 scores every example at every checkpoint: leave `recall` at none and "
                "`added_data` at exact"
            )
        return self

    @model_validator(mode="after")
    def _segments_have_eigenvalues(self) -> Self:
        if self.is_source and (not self.whitens or self.reads_optimizer):
            raise ValueError(
                '`checkpoint_weights = "source"` needs the eigenvalues of the loss along a layer\'s bases: set `curvature` '
                f'to "ekfac" or "kfac"; found "{self.curvature}"'
            )
        return self

    @model_validator(mode="after")
    def _leading_eigenvalues_exist(self) -> Self:
        if self.damping_rule == "leading" and self.basis_width == 0:
            raise ValueError('`damping_rule = "leading"` needs leading eigenvalues: raise `r` or `oversample` above 0')
        return self

    @model_validator(mode="after")
    def _byte_budgets_need_bases(self) -> Self:
        if self.whitens:
            return self
        whitening = " or ".join(
            f'`curvature = "{name}"`' for name, fields in CURVATURE_FIELDS.items() if fields.whitens
        )
        if self.bytes_per_example is not None:
            raise ValueError(
                f"`bytes_per_example` needs {whitening}, whose bases show what a component is worth; with "
                f'"{self.curvature}" set `rank`'
            )
        if self.max_width == AUTO:
            raise ValueError(
                f'`max_width = "auto"` follows from the bytes of an example, which need {whitening}; with "{self.curvature}" '
                "set a number, or `projection_factor`"
            )
        return self

    @property
    def basis_width(self) -> int:
        """Columns k of the curvature's basis, before a layer's D bounds it."""
        if self.oversample is not None:
            return self.r + self.oversample
        # Measured against the exact inverse: as good as one refinement with ten more columns, in one pass less.
        return self.r + max(self.r, 32) if self.r else 0

    @property
    def averages(self) -> bool:
        """Whether scores are averaged over checkpoints in any case."""
        return self.averaged_checkpoints not in (1, "auto")

    @property
    def is_source(self) -> bool:
        """Whether averaged checkpoints are the segments of one training run (SOURCE)."""
        return self.checkpoint_weights == "source"

    @property
    def reads_optimizer(self) -> bool:
        """Whether the curvature is made of the optimiser's state beside a checkpoint's weights."""
        return self.curvature_fields.reads_optimizer

    @property
    def recalls(self) -> bool:
        """Whether an encoder proposes the examples that are scored."""
        return self.recall != "none"

    @property
    def whitens(self) -> bool:
        """Whether gradients are whitened in K-FAC bases, which are fitted first, before they are factorised."""
        return self.curvature_fields.whitens

    @property
    def curvature_fields(self) -> CurvatureFields:
        """What the recipe's curvature adds to what each stage depends on."""
        return CURVATURE_FIELDS[self.curvature]

    @property
    def knows_axis_sizes(self) -> bool:
        """Whether queries know how large whitened gradients are along the axes of which signs are kept."""
        return self.axis_sizes and self.whitens and self.factor_dtype == "sign"
