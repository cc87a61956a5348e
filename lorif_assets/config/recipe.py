"""The recipe: everything that the scores depend on besides the data and the weights, hashed stage by stage."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.curvature_fields import WHITENING_FIELDS
from lorif_assets.config.presets import AUTO
from lorif_assets.config.recipe_fields import TEMPLATE_DATE, RecipeFields, TruncationRule

if TYPE_CHECKING:
    from lorif_assets.mathematics.gradients.projection import Projection

# What the tokens of queries, and of training examples, depend on besides their content and the tokenizer.
_QUERY_TOKEN_FIELDS = ("max_length", "truncation", "prompt_completion", "template_date")
TOKEN_FIELDS = (*_QUERY_TOKEN_FIELDS, "append_eos")
# What each stage's result depends on under every curvature. A stage's hash covers the stages before it, so a new `r` or
# damping leaves the factors as they are.
_GRADIENT_FIELDS = (
    "track",
    "include_layers",
    "exclude_layers",
    "projection_factor",
    "max_width",
    "max_factor",
    "seed",
    "model_dtype",
    "tf32",
    *TOKEN_FIELDS,
)
_FACTOR_FIELDS = (*_GRADIENT_FIELDS, "rank", "factor_dtype", "factor_rounds", "curvature")
_SCORE_FIELDS = ("query_rank", "top_k", "added_data", "merge_tolerance")
_RECALL_FIELDS = ("recall", "candidates", "recall_agreement")
_AVERAGING_FIELDS = ("averaged_checkpoints", "checkpoint_weights", "source_time")
# Fields that came later, at the value that stands for what was done before: there, hashes are those of before. (Before,
# templates were told the day of the run.)
_BEFORE_THE_FIELD: Mapping[str, object] = {
    "truncation": "completion_first",
    "prompt_completion": "apart",
    "append_eos": False,
    "template_date": TEMPLATE_DATE.isoformat(),
    "checkpoint_weights": "equal",
    "factor_rounds": None,
    "max_factor": None,
    "tf32": False,
    "whitening_rank": None,
    "fisher_share": 1.0,
    "axis_sizes": False,
}
# What `AUTO` comes to on a model: another rule, another number, so that nothing is taken for the work of the new one.
_AUTO_RULE = 2
_LEFT_TO_THE_MODEL = ("max_width", "bytes_per_example")
# Sides of at most this width are a LoRA adapter's rank.
_ADAPTER_RANK = 64


class Recipe(RecipeFields):
    """How influence is computed. The defaults are safe; every field changes the scores.

    Beside the fields, what follows from them, and the hash of each stage.
    """

    @property
    def query_truncation(self) -> TruncationRule:
        """How queries are cut: what is asked about keeps its loss, whatever the training did."""
        return "completion_first" if self.truncation == "completion_first" else "drop_early_turns"

    @property
    def tokens_version(self) -> object:
        """What an example's tokens depend on besides its content and the tokenizer, to be hashed."""
        return self._tokens_version(TOKEN_FIELDS)

    @property
    def query_tokens_version(self) -> object:
        """The same for queries."""
        return self.model_copy(update={"truncation": self.query_truncation})._tokens_version(_QUERY_TOKEN_FIELDS)

    def _tokens_version(self, fields: tuple[str, ...]) -> object:
        values = self._hashed(fields)
        # As it was hashed when there was one field alone.
        return values if len(values) > 1 else self.max_length

    @property
    def projection(self) -> "Projection":
        """How the sides of layers are projected.

        Raises:
            ValueError: that is left to the model (`attribution.fitted_recipe` has the numbers).
        """
        from lorif_assets.mathematics.gradients.projection import Projection

        if self.max_width == AUTO:
            raise ValueError('with `max_width = "auto"` the projection depends on the model')
        whole = _ADAPTER_RANK if self.track == "adapter" else 0
        if self.max_width is not None:
            return Projection(max_width=self.max_width, max_factor=self.max_factor, seed=self.seed, whole=whole)
        return Projection(factor=self.projection_factor, seed=self.seed, whole=whole)

    def projected(self, projection: "Projection") -> "Recipe":
        """Return the same recipe with another projection."""
        factor = self.projection_factor if projection.factor is None else projection.factor
        return self.changed(
            projection_factor=factor,
            max_width=projection.max_width,
            max_factor=projection.max_factor,
            seed=projection.seed,
        )

    def changed(self, **fields: object) -> "Recipe":
        """Return the same recipe with other values of some fields, as if they were set beside those that are.

        Raises:
            pydantic.ValidationError: the fields contradict one another.
        """
        return Recipe.model_validate({**self.model_dump(exclude_unset=True), **fields})

    @property
    def is_left_to_the_model(self) -> bool:
        """Whether widths or bytes follow from the model's layers."""
        return AUTO in (self.max_width, self.bytes_per_example)

    @property
    def byte_budget(self) -> int | None:
        """Bytes of an example's factors across all layers; None where they follow from a rank.

        Raises:
            ValueError: that is left to the model (`attribution.fitted_recipe` has the number).
        """
        if self.bytes_per_example == AUTO:
            raise ValueError('with `bytes_per_example = "auto"` the bytes depend on the model')
        return self.bytes_per_example

    @property
    def uniform_rank(self) -> int | None:
        """The rank that every layer has, as far as its widths let it; None where each layer's follows from a budget."""
        if self.whitens and (self.bytes_per_example or self.rank_by_layer):
            return None
        return self.rank

    @property
    def applied_damping(self) -> float | None:
        """The damping of the recipe's curvature; None if it has none."""
        name = self.curvature_fields.damping
        return None if name is None else float(getattr(self, name))

    @property
    def averaging(self) -> Sequence[object]:
        """How averaged checkpoints count, to be hashed."""
        return [self.checkpoint_weights, *([self.source_time] if self.is_source else [])]

    @property
    def averages_fine_tunes(self) -> bool:
        """Whether scores are averaged over checkpoints where these are of a fine-tune whose base model is known."""
        return self.averaged_checkpoints == "auto" and not self.recalls and self.added_data == "exact"

    @property
    def trial_hash(self) -> str:
        """Hash of the fields that dense gradients and their whitening depend on: recipes that share it are tried together."""
        return self._hash((*self._used(_GRADIENT_FIELDS), *WHITENING_FIELDS))

    @property
    def factor_hash(self) -> str:
        """Hash of the fields that gradient factors depend on."""
        return self._hash(self._factor_fields)

    @property
    def preconditioner_hash(self) -> str:
        """Hash of the fields that preconditioners depend on, those of the factors included."""
        return self._hash(self._factor_fields + self.curvature_fields.preconditioners)

    @property
    def score_hash(self) -> str:
        """Hash of every field that the scores depend on."""
        return self._hash(self.fields_in_use)

    @property
    def fields_in_use(self) -> tuple[str, ...]:
        """The fields that the scores depend on; the others belong to other curvatures, or are switched off."""
        fields = self._used(self.curvature_fields.scores) + _SCORE_FIELDS
        recall = _RECALL_FIELDS if self.recalls else ()
        averaging = self._used(_AVERAGING_FIELDS) if self.averages else ()
        return self._factor_fields + self.curvature_fields.preconditioners + fields + recall + averaging

    @property
    def _factor_fields(self) -> tuple[str, ...]:
        return self._used(_FACTOR_FIELDS + self.curvature_fields.factors)

    def _used(self, fields: tuple[str, ...]) -> tuple[str, ...]:
        """Return the fields that no other field replaces."""
        unused = {"max_width", "max_factor"} if self.max_width is None else {"projection_factor"}
        # Lakes were written before there was a choice.
        unused |= {"track"} if self.track == "weights" else set()
        unused |= set() if self.is_source else {"source_time"}
        unused |= set() if self.factor_dtype == "sign" else {"axis_sizes"}
        unused |= {"rank", "rank_by_layer"} if self.bytes_per_example else {"bytes_per_example"}
        return tuple(name for name in fields if name not in unused)

    def _hash(self, fields: tuple[str, ...]) -> str:
        return content_hash(self._hashed(fields))

    def _hashed(self, fields: tuple[str, ...]) -> dict[str, object]:
        """Return the values of fields, without those that stand for what was done before there was the field."""
        values = self.model_dump(mode="json", include=set(fields))
        left = [name for name in _LEFT_TO_THE_MODEL if values.get(name) == AUTO]
        values |= dict.fromkeys(left, f"{AUTO} {_AUTO_RULE}")
        return {
            name: value
            for name, value in values.items()
            if name not in _BEFORE_THE_FIELD or value != _BEFORE_THE_FIELD[name]
        }
