"""Attribution without lake or settings: a model, its tokenizer, the examples that it was trained on, and questions."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from jaxtyping import Float32
from pydantic import ValidationError

from lorif_assets.api.answer import Attribution
from lorif_assets.api.rows import Rows, normalised_rows
from lorif_assets.attribution.ask import TopK, check_tokens, check_top_k
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.in_memory import InMemoryAttribution
from lorif_assets.attribution.scores.score_query_sets import queries_per_scan
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.config.sources import Columns
from lorif_assets.config.wrong_settings import explanation
from lorif_assets.data.content.query_objectives import NO_SCALARS
from lorif_assets.data.passages import passage_text
from lorif_assets.data.rows.rejected import rejected_table
from lorif_assets.data.rows.rejection_reasons import first_and_counts
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import SettingsError, SourceError
from lorif_assets.mathematics.gradients.soundness import refuse_unattributable
from lorif_assets.models.devices import DeviceGroup

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LOG = logging.getLogger(__name__)
_EXAMPLES, _QUERIES = "examples", "queries"
# What these say is of checkpoints and scores in a lake.
_OF_THE_LAKE: Mapping[str, Sequence[Any]] = {
    "added_data": ["exact"],
    "averaged_checkpoints": ["auto", 1],
    "recall": ["none"],
}


def attribute(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Rows,
    queries: Rows,
    recipe: Recipe | Mapping[str, Any] | str | None = None,
    *,
    top_k: TopK = 10,
    tokens: int = 0,
    columns: Columns | None = None,
    batch: BatchSettings | None = None,
) -> list[Attribution]:
    """Tell which training examples made a model say what the queries say.

    To ask more than once of the same examples, take `fit`.

    Args:
        model: any causal language model of transformers, on any one device; it is left as it is, and used in its own type.
        tokenizer: the model's.
        examples: what it was trained on: texts; mappings with text, prompt and completion, messages or input_ids; or a
            table or `datasets.Dataset` of such rows. The loss is on the completion, the assistant's turns or the text.
        queries: what it said, in the same forms.
        recipe: how influence is computed, or its fields, or "paper"; default: that of lorif.toml. Its `top_k` and
            `model_dtype` have no part in it.
        top_k: proponents and opponents to list of each query, or "all" for every example.
        tokens: proponents and opponents of each query whose tokens are scored too, which takes passes of the model over each.
        columns: which columns of the examples hold what; default: by their names.
        batch: budgets of memory.

    Returns:
        An answer for each query, in their order.

    Raises:
        SourceError: no example, or a query, cannot be used.
        SettingsError: a field of the recipe, `top_k` or `tokens` is wrong, the recipe asks for what only a lake has, or its
            budget is too small.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    # Before the examples take their time.
    check_top_k(top_k)
    check_tokens(tokens)
    fitted = fit(model, tokenizer, examples, recipe, columns=columns, batch=batch)
    return fitted.attribute(queries, top_k=top_k, tokens=tokens)


def fit(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Rows,
    recipe: Recipe | Mapping[str, Any] | str | None = None,
    *,
    columns: Columns | None = None,
    batch: BatchSettings | None = None,
) -> "FittedModel":
    """Compute the factors of all examples and the model's curvature once, to ask as often as wanted.

    Arguments and errors are those of `attribute`. Examples that cannot be used are set aside, with a warning.
    """
    chosen = Recipe() if recipe is None else _recipe(recipe)
    for name, without in _OF_THE_LAKE.items():
        if getattr(chosen, name) not in without:
            raise SettingsError(
                f"the recipe's {name} is {getattr(chosen, name)!r}, which needs a lake; leave it at {without[0]!r} in memory"
            )
    shard = normalised_rows(examples, columns, _EXAMPLES)
    record = CheckpointRecord(type(model).__name__, "", "", model.config.model_type, model.num_parameters(), None, {})
    group = DeviceGroup((model.device,))
    refuse_unattributable(model)
    attributed = AttributedModel(record, chosen, model, tokenizer, (), "", group).under(chosen)
    tokenized = attributed.tokenized(shard.examples)
    if not tokenized.examples:
        reasons = first_and_counts(tokenized.rejected["reason"].to_pylist())
        raise SourceError(f"no example can be used with this tokenizer; {reasons}")
    unusable = pl.concat(pl.DataFrame(table) for table in (shard.rejected, tokenized.rejected)).sort("row")
    if chosen.whitens and len(tokenized.examples) == 1 and not unusable.is_empty():
        raise SourceError(
            f"only one example can be used, and `recipe.curvature` {chosen.curvature!r} needs two; {_first(unusable)}"
        )
    rows = pl.DataFrame(shard.examples)
    held = InMemoryAttribution.fit(attributed, rows, tokenized.examples, batch or BatchSettings())
    rejected = pl.concat([unusable, pl.DataFrame(rejected_table(held.not_finite))]).sort("row", maintain_order=True)
    if not rejected.is_empty():
        _LOG.warning(f"{len(rejected)} examples are set aside; {_first(rejected)}")
    texts = pl.Series("text", [passage_text(row) for row in rows.iter_rows(named=True)], pl.String)
    return FittedModel(held, rows, rows.select("example_id", texts, "metadata"), rejected)


def _recipe(recipe: Recipe | Mapping[str, Any] | str) -> Recipe:
    try:
        return Recipe.model_validate(recipe)
    except ValidationError as error:
        raise SettingsError(explanation(error, "the recipe", Recipe)) from error


def _first(rejected: pl.DataFrame) -> str:
    row, reason = rejected.select("row", "reason").row(0)
    return f"row {row}: {reason}"


@dataclass(frozen=True, eq=False, repr=False)
class FittedModel:
    """A model whose examples' factors and curvature are in memory: `attribute` asks it.

    It holds the model itself: a model that is trained on gives other gradients than those that were fitted.
    """

    _held: InMemoryAttribution
    _rows: pl.DataFrame
    _passages: pl.DataFrame
    rejected: pl.DataFrame
    """Examples that were set aside: example_id, row, reason and excerpt."""

    def __repr__(self) -> str:
        record, recipe = self._held.attributed.record, self._held.attributed.recipe
        return (
            f"FittedModel({record.name}, {len(self.example_ids):,} examples, {len(record.layer_shapes)} layers, "
            f"{recipe.curvature}, {self.bytes_per_example:,} bytes per example)"
        )

    @property
    def example_ids(self) -> tuple[str, ...]:
        """The examples that are scored, in their order."""
        return tuple(self._held.example_ids)

    @property
    def bytes_per_example(self) -> int:
        """Bytes that are held of each example."""
        return sum(factors.shape[1] for factors in self._held.factors.values())

    def attribute(self, queries: Rows, *, top_k: TopK = 10, tokens: int = 0) -> list[Attribution]:
        """Score every example for each query.

        Args:
            queries: texts, mappings or a table, as the examples were.
            top_k: proponents and opponents to list of each, or "all" for every example.
            tokens: proponents and opponents of each whose tokens are scored too.

        Raises:
            SourceError: a query cannot be used.
            SettingsError: `top_k` is neither a positive number nor "all", or `tokens` no whole number from 0.
            UnsoundQueryError: a query's loss or gradient is not finite.
        """
        check_top_k(top_k)
        check_tokens(tokens)
        rows, tokenized = self._read(queries)
        answers = []
        for some in self._at_a_time(tokenized):
            scored = self._held.score(some, top_k).with_cuts(some)
            if tokens:
                scored = replace(scored, tokens=self._held.token_rows(scored, some, self._rows, tokens))
            for query in some:
                row, name = rows[query.row], self._held.attributed.record.name
                answers.append(Attribution.of(scored, query.example_id, self._with_passages, row, name))
        return answers

    def scores(self, queries: Rows) -> Float32[np.ndarray, "Q N"]:
        """Return the score of every example, in the order of `example_ids`, for every query.

        Raises:
            SourceError: a query cannot be used.
            UnsoundQueryError: a query's loss or gradient is not finite.
        """
        _, tokenized = self._read(queries)
        found = [self._held.scores(some).numpy() for some in self._at_a_time(tokenized)]
        return np.concatenate(found).astype(np.float32, copy=False)

    def _with_passages(self, scores: pl.DataFrame) -> pl.DataFrame:
        return scores.join(self._passages, on="example_id", how="left", maintain_order="left")

    def _read(self, queries: Rows) -> tuple[dict[int, dict[str, Any]], Sequence[TokenizedExample]]:
        shard = normalised_rows(queries, None, _QUERIES, NO_SCALARS)
        tokenized = self._held.attributed.tokenized_queries(shard.examples, "example_id")
        for rejected in (shard.rejected, tokenized.rejected):
            if rejected.num_rows:
                row, reason = rejected["row"][0].as_py(), rejected["reason"][0].as_py()
                raise SourceError(f"query {row} cannot be scored: {reason}")
        return {row["row"]: row for row in shard.examples.to_pylist()}, tokenized.examples

    def _at_a_time(self, queries: Sequence[TokenizedExample]) -> list[Sequence[TokenizedExample]]:
        """Return the queries in groups that memory holds preconditioned."""
        attributed = self._held.attributed
        limit = queries_per_scan(attributed.record, attributed.recipe, self._held.batch, n_checkpoints=1)
        return [queries[first : first + limit] for first in range(0, len(queries), limit)]
