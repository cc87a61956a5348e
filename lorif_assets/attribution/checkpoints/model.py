"""A checkpoint ready for attribution: model, tokenizer and projections on a device, and its examples' gradients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe, with_width
from lorif_assets.attribution.recipes.memory_verdict import batch_limit
from lorif_assets.attribution.recipes.recipe_on_model import head_name, longest_input, tracked_layers
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.loading.vocabulary import check_vocabulary, vocabulary_size

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lorif_assets.data.tokens.tokenization import TokenizedExample, TokenizedShard
    from lorif_assets.mathematics.gradients.collector import BatchGradients, GradientCollector, TokenBatch
    from lorif_assets.mathematics.gradients.layers import TrackedLayer
    from lorif_assets.mathematics.gradients.loss_slopes import DirectionalPasses
    from lorif_assets.mathematics.gradients.projection import LayerProjection


@dataclass(frozen=True)
class AttributedModel:
    """A loaded checkpoint. `projection` is the fingerprint of its projections."""

    record: CheckpointRecord
    recipe: Recipe
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    projections: "Sequence[LayerProjection]"
    projection: str
    devices: DeviceGroup
    batch_limit: int | None = None
    """Tokens of the largest batch for which memory suffices; None where a batch of the default size fits."""
    max_width: int | None = None
    """The largest width, where it was measured; None where recipe and shapes decide it."""

    @classmethod
    def load(
        cls, record: CheckpointRecord, recipe: Recipe, model_checkpoints: Checkpoints, devices: DeviceGroup
    ) -> "AttributedModel":
        """Load a recorded checkpoint.

        Raises:
            MismatchError: the files changed since they were recorded.
            CheckpointError: it cannot be loaded, or free memory does not hold it with a batch of one example.
            LayerError: it is no causal language model, or its experts are of an unknown form.
        """
        from lorif_assets.mathematics.gradients.layers import named_layers
        from lorif_assets.mathematics.gradients.projection import fingerprint, layer_projection
        from lorif_assets.mathematics.gradients.soundness import refuse_unattributable

        files = model_checkpoints.get(record.name)
        record.refuse_other_files(files)
        limit = batch_limit(model_checkpoints, files, recipe, devices)
        model = model_checkpoints.load_model(files, recipe.model_dtype, devices, recipe.track)
        tokenizer = model_checkpoints.load_tokenizer(files)
        check_vocabulary(files, model, tokenizer)
        refuse_unattributable(model)
        # Those that were recorded, and no others: a later version may choose others by the same patterns.
        layers = named_layers(model, record.layer_shapes)
        width = record.frozen_bases.max_width if record.frozen_bases else None
        projection = _at_width(recipe, layers, width).projection
        return cls(
            record,
            recipe,
            model,
            tokenizer,
            [layer_projection(layer, projection) for layer in layers],
            fingerprint(layers, projection),
            devices,
            limit,
            width,
        )

    @cached_property
    def fitted_recipe(self) -> Recipe:
        """The recipe with numbers in place of what it leaves to the model."""
        return _at_width(self.recipe, [projection.layer for projection in self.projections], self.max_width)

    @property
    def device(self) -> "torch.device":
        """The device of batches, gradients and all that is computed from them; weights may be spread over several."""
        return self.devices.first

    @property
    def head(self) -> str | None:
        """The module path of the LM head, or None where the model has none."""
        return head_name(self.model)

    @property
    def max_length(self) -> int:
        """Tokens of an input, at most."""
        return longest_input(self.model, self.tokenizer, self.recipe)

    def under(self, recipe: Recipe) -> "AttributedModel":
        """Return the same loaded checkpoint with other layers or projections, for which the lake holds nothing."""
        return self._projected(recipe, tracked_layers(self.model, recipe), None)

    def at_width(self, width: int) -> "AttributedModel":
        """Return the same loaded checkpoint with a largest width, in place of the one that its shapes decide."""
        return self._projected(self.recipe, [projection.layer for projection in self.projections], width)

    def _projected(self, recipe: Recipe, layers: "Sequence[TrackedLayer]", width: int | None) -> "AttributedModel":
        from lorif_assets.mathematics.gradients.projection import fingerprint, layer_projection

        projection = _at_width(recipe, layers, width).projection
        projections = [layer_projection(layer, projection) for layer in layers]
        return replace(
            self,
            record=replace(
                self.record, layer_shapes={p.layer.name: (p.d1, p.d2) for p in projections}, frozen_bases=None
            ),
            recipe=recipe,
            projections=projections,
            projection=fingerprint(layers, projection),
            max_width=width,
        )

    def tokenized(self, examples: pa.Table) -> "TokenizedShard":
        """Return training examples as token ids and labels; those that cannot be used are listed with the reason."""
        from lorif_assets.data.tokens.rules import TokenRules
        from lorif_assets.data.tokens.tokenization import tokenize

        rules = TokenRules.of_examples(self.recipe)
        return tokenize(examples, self.tokenizer, self.max_length, vocabulary_size(self.model), rules=rules).logged()

    def tokenized_queries(self, queries: pa.Table, id_column: str = "query_id") -> "TokenizedShard":
        """Return queries as token ids and labels; those that cannot be used are listed with the reason."""
        return tokenized_queries(self.model, self.tokenizer, self.recipe, queries, id_column)

    def gradients(
        self, examples: "Sequence[TokenizedExample]", batch_tokens: int
    ) -> "Iterator[tuple[list[int], BatchGradients]]":
        """Yield, batch by batch, positions among the examples and their losses and projected gradients."""
        with self.collector() as collector:
            for positions in self.batches(examples, batch_tokens):
                yield positions, collector.collect(self.batch(examples, positions))

    def collector(self) -> "GradientCollector":
        """Return the collector of the tracked layers' gradients, a context manager that can be entered again and again."""
        return self._collector

    @cached_property
    def _collector(self) -> "GradientCollector":
        """Made once, so that projections are copied to the devices once, whatever the number of shards."""
        from lorif_assets.mathematics.gradients.collector import GradientCollector

        return GradientCollector(self.model, self.projections, tf32=self.recipe.tf32)

    @cached_property
    def directional_passes(self) -> "DirectionalPasses":
        """The passes that give the slopes of single tokens' losses along directions of the tracked layers."""
        from lorif_assets.mathematics.gradients.loss_slopes import DirectionalPasses

        return DirectionalPasses(self.model, self.projections)

    def batches(self, examples: "Sequence[TokenizedExample]", batch_tokens: int) -> list[list[int]]:
        """Return positions among the examples, batch by batch, the largest batch first; none beyond the memory's limit."""
        from lorif_assets.mathematics.gradients.batching import token_budget_batches

        tokens = min(batch_tokens, self.batch_limit or batch_tokens)
        return token_budget_batches([len(example.input_ids) for example in examples], tokens)

    def batch(self, examples: "Sequence[TokenizedExample]", positions: Sequence[int]) -> "TokenBatch":
        """Return some of the examples as one padded batch on the device."""
        from lorif_assets.mathematics.gradients.batching import pad_right

        chosen = [examples[i] for i in positions]
        return pad_right([e.input_ids for e in chosen], [e.labels for e in chosen]).to(self.device)


def _at_width(recipe: Recipe, layers: "Sequence[TrackedLayer]", width: int | None) -> Recipe:
    """Return a recipe with numbers in place of what it leaves to the model, and a width that was measured if there is one."""
    return fitted_recipe(recipe if width is None else with_width(recipe, width, layers), layers)


def tokenized_queries(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    recipe: Recipe,
    queries: pa.Table,
    id_column: str = "query_id",
) -> "TokenizedShard":
    """Return queries as token ids and labels that a model can read; those that cannot be used are listed with the reason.

    Raises:
        MismatchError: the code of a scalar changed since its query was read.
        SourceError: it cannot be imported.
    """
    from lorif_assets.data.tokens.query_terms import tokenized_with_objectives
    from lorif_assets.data.tokens.rules import TokenRules
    from lorif_assets.data.tokens.tokenization import tokenize

    longest, rules = longest_input(model, tokenizer, recipe), TokenRules.of_queries(recipe)

    def by_content(rows: pa.Table) -> "TokenizedShard":
        return tokenize(rows, tokenizer, longest, vocabulary_size(model), id_column, rules).logged()

    return tokenized_with_objectives(queries, id_column, tokenizer, by_content)
