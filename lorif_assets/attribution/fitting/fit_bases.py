"""Fitting a checkpoint's K-FAC bases, and its layers' ranks, to a sample of its training examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import polars as pl

from lorif_assets.attribution.factors.batch_budget import computed_at_once
from lorif_assets.attribution.factors.sound_examples import NotFiniteError, not_finite, unsound_positions
from lorif_assets.attribution.fitting.layer_ranks import RANK_EXAMPLES, layer_ranks
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.rows.rejected import RejectedRow
from lorif_assets.data.rows.rejection_reasons import count_reasons, in_words
from lorif_assets.data.tokens.tokenization import TokenizedExample, TokenizedShard, n_tokens
from lorif_assets.errors import LorifError, MismatchError
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    import logging

    import torch

    from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint
    from lorif_assets.attribution.checkpoints.model import AttributedModel
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases, KfacCovariances
    from lorif_assets.mathematics.gradients.layer_calls import TokenCalls
    from lorif_assets.progress import Progress

FEWEST_EXAMPLES = 2
_NAMED = 5


@dataclass(frozen=True)
class LayerFit:
    """One layer's bases, how well two halves of the sample agree on them, and its rank."""

    bases: "KfacBases"
    half_agreement: float
    n_tokens: int
    rank: int
    kept_energy: float


@dataclass(frozen=True)
class KfacFit:
    """The fit of all layers, the number of examples that it was made to, and the hash of those that were drawn."""

    layers: Mapping[str, LayerFit]
    n_examples: int
    sample_hash: str
    not_finite: Sequence[RejectedRow] = ()
    """Examples of the sample that were set aside because their loss or a gradient is not finite."""

    @property
    def fingerprint(self) -> str:
        """Return the hash of all bases and ranks; factors that are written in them carry it."""
        digest = blake2b(digest_size=16)
        for name, layer in self.layers.items():
            digest.update(f"|{name}|{layer.rank}|{layer.bases.damping}|".encode())
            for tensor in layer.bases.tensors().values():
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class KfacSample:
    """The training examples that bases are fitted to, as a checkpoint's tokenizer reads them, and the hash of which."""

    tokenized: "TokenizedShard"
    sample_hash: str

    def refuse_too_few(self, checkpoint: str) -> None:
        """Refuse a sample of which too few can be used.

        Raises:
            LorifError: with the reasons.
        """
        usable, rejected = len(self.tokenized.examples), self.tokenized.rejected["reason"].to_pylist()
        if usable < FEWEST_EXAMPLES:
            why = f": {in_words(count_reasons(rejected))}. The table `rejected` lists those" if rejected else ""
            raise LorifError(
                f"K-FAC bases need at least two examples, but only {usable} of {usable + len(rejected)} sampled examples can "
                f"be used with the tokenizer of {checkpoint!r}{why}"
            )


def kfac_sample(checkpoint: "LoadedCheckpoint") -> KfacSample:
    """Draw a sample of the training examples in the lake.

    Raises:
        MismatchError: there are no training examples.
    """
    sample = _sample(checkpoint.stored.lake, checkpoint.model.recipe)
    return KfacSample(checkpoint.model.tokenized(sample.to_arrow()), content_hash(sample["content_hash"].to_list()))


def fit_tokens(examples: "Sequence[TokenizedExample]") -> int:
    """Return the tokens that a fit to some examples passes through the model: of all for bases, of a few for ranks."""
    return n_tokens(examples) + n_tokens(examples[:RANK_EXAMPLES])


def fit_sound_layers(
    attributed: "AttributedModel", examples: "Sequence[TokenizedExample]", batch: "BatchSettings", progress: "Progress"
) -> "tuple[dict[str, LayerFit], list[TokenizedExample]]":
    """Fit the bases of every tracked layer to the sound ones of some examples; return them, and the examples that are not.

    Those are looked for where a sum over all is not finite, so that a sound sample costs no more.

    Raises:
        LorifError: fewer than two examples are sound, or they overflow together.
        SettingsError: the byte budget does not pay for one component of every layer.
    """
    try:
        return fit_layers(attributed, examples, batch, progress), []
    except NotFiniteError:
        sound, unsound = without_unsound(attributed, examples, batch, progress.log)
        if not unsound or len(sound) < FEWEST_EXAMPLES:
            raise
    return fit_layers(attributed, sound, batch, progress), unsound


def without_unsound(
    attributed: "AttributedModel", examples: "Sequence[TokenizedExample]", batch: "BatchSettings", log: "logging.Logger"
) -> "tuple[list[TokenizedExample], list[TokenizedExample]]":
    """Return the examples whose loss and gradients are finite, and the others, which are named in the log."""
    positions = set(unsound_positions(attributed, examples, batch))
    unsound = [example for position, example in enumerate(examples) if position in positions]
    if unsound:
        names = ", ".join(example.example_id for example in unsound[:_NAMED])
        log.warning(
            f"{attributed.record.name}: the loss or a gradient of {len(unsound)} sampled examples is not finite ({names}"
            f"{', ...' if unsound[_NAMED:] else ''}); K-FAC bases are fitted without them"
        )
    return [example for position, example in enumerate(examples) if position not in positions], unsound


def fit_layers(
    attributed: "AttributedModel", examples: "Sequence[TokenizedExample]", batch: "BatchSettings", progress: "Progress"
) -> dict[str, LayerFit]:
    """Fit the bases of every tracked layer to some examples; `progress` advances by tokens, `fit_tokens` in all.

    Raises:
        NotFiniteError: activations or gradients are not finite.
        LorifError: there are fewer than two examples.
        SettingsError: the byte budget does not pay for one component of every layer.
    """
    if len(examples) < FEWEST_EXAMPLES:
        raise LorifError(
            f"K-FAC bases need at least two examples, but only {len(examples)} of the sample can be used with the tokenizer "
            f"of {attributed.record.name!r}"
        )
    halves = [covariances(attributed, examples[half::2], batch, progress, seed=half) for half in (0, 1)]
    return layer_fits(attributed, examples, halves, batch, progress)


def layer_fits(
    attributed: "AttributedModel",
    examples: "Sequence[TokenizedExample]",
    halves: "Sequence[dict[str, KfacCovariances]]",
    batch: "BatchSettings",
    progress: "Progress",
) -> dict[str, LayerFit]:
    """Return the fit of each layer to the covariances of two halves of some examples, which are used up.

    Raises:
        NotFiniteError: activations or gradients are not finite.
        SettingsError: the byte budget does not pay for one component of every layer.
    """
    recipe, bases, agreement, tokens = attributed.recipe, {}, {}, {}
    for layer in attributed.record.layer_shapes:
        first, second = (half.pop(layer).to(attributed.device) for half in halves)
        try:
            agreement[layer] = min(first.diagonality(second.bases(1.0)), second.diagonality(first.bases(1.0)))
            bases[layer] = first.merge(second).bases(recipe.whitening_damping, recipe.whitening_rank)
        except ValueError as error:
            raise not_finite(attributed, layer, str(error)) from error
        tokens[layer] = first.tokens + second.tokens
    ranks = layer_ranks(attributed, examples[:RANK_EXAMPLES], bases, batch, progress)
    return {
        layer: LayerFit(bases[layer], agreement[layer], tokens[layer], ranks[layer].rank, ranks[layer].kept_energy)
        for layer in bases
    }


def _sample(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    ids = lake.read(TRAINING_EXAMPLES, ["shard", "row", "content_hash"])
    if ids.is_empty():
        raise MismatchError(
            "there are no training examples to fit K-FAC bases to; materialize `training_examples` first"
        )
    chosen = sample_rows(ids, recipe)
    # Read shard by shard, so that only the sample is ever in memory.
    rows = [
        lake.read(TRAINING_EXAMPLES, shard=shard).join(of_shard.select("row", "order"), on="row")
        for (shard,), of_shard in chosen.group_by("shard")
    ]
    return pl.concat(rows).sort("order").drop("order")


def sample_rows(examples: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Return the examples with the smallest hashes under the seed: a random sample that hardly changes as data are added.

    Args:
        examples: a table with the columns shard, row and content_hash.
        recipe: seed and size of the sample.

    Returns:
        Their rows, with a column `order` by which they are sorted.
    """
    order = pl.Series(
        "order",
        [
            blake2b(f"{recipe.seed}|{shard}|{row}|{content}".encode(), digest_size=8).hexdigest()
            for shard, row, content in examples.select("shard", "row", "content_hash").iter_rows()
        ],
    )
    return examples.with_columns(order).sort("order").head(recipe.kfac_examples)


def covariances(
    attributed: "AttributedModel",
    examples: "Sequence[TokenizedExample]",
    batch: "BatchSettings",
    progress: "Progress",
    seed: int,
) -> "dict[str, KfacCovariances]":
    """Return the layers' covariances over the tokens of some examples; `seed` draws the labels if the model gives them.

    Raises:
        LorifError: a single example does not fit in memory.
    """
    sums_with = partial(_covariances, attributed, examples, progress, seed)
    return computed_at_once(attributed, examples, batch.tokens_on(attributed.device), sums_with, progress.log)


def _covariances(
    attributed: "AttributedModel", examples: "Sequence[TokenizedExample]", progress: "Progress", seed: int, tokens: int
) -> "dict[str, KfacCovariances]":
    """Return the sums from batches of so many tokens."""
    import torch

    from lorif_assets.mathematics.curvature.kfac_bases import KfacCovariances

    sums = {
        layer: KfacCovariances.empty(d1, d2, attributed.device)
        for layer, (d1, d2) in attributed.record.layer_shapes.items()
    }
    routed = {p.layer.name for p in attributed.projections if p.layer.expert is not None}
    generator = None
    if attributed.recipe.kfac_labels == "model":
        generator = torch.Generator(attributed.device).manual_seed((attributed.recipe.seed + seed) % 2**63)
    with attributed.collector() as collector:
        for positions in attributed.batches(examples, tokens):
            batch = attributed.batch(examples, positions)

            # Looked up once for all layers: a device waits for the host to know their number.
            mask = batch.attention_mask.flatten()
            found = mask.nonzero().squeeze(1)
            places = found if len(found) < len(mask) else None

            def observer(layer: str, calls: "TokenCalls", places: "torch.Tensor | None" = places) -> None:
                for x, dy in calls:
                    rows = x.flatten(0, 1), dy.flatten(0, 1)
                    # Of an expert the collector shows the tokens that were routed to it, without padding.
                    if places is not None and layer not in routed:
                        rows = rows[0][places], rows[1][places]
                    sums[layer] = sums[layer].add(*rows)

            collector.observe(batch, observer, generator)
            progress.advance(n_tokens(examples[position] for position in positions))
    return sums
