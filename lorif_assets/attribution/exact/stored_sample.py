"""A few stored examples with their factors, and with their gradients computed again: what checks look at."""

from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.queries.precondition_queries import preconditioned_queries
from lorif_assets.attribution.scores.score_queries import PlainScorer
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import MismatchError
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import FactorFile
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors, reconstruction_error
from lorif_assets.mathematics.scores.relative_influence import ScoredBlock


@dataclass(frozen=True)
class StoredSample:
    """Examples, their positions in the order of `StoredFactors.blocks`, and per layer their stored factors."""

    examples: tuple[TokenizedExample, ...]
    positions: tuple[int, ...]
    factors: dict[str, GradientFactors]


@dataclass(frozen=True)
class LayerReconstruction:
    """The relative error of a layer's stored factors, and that of factors computed again with their rank and codec."""

    error: float
    expected: float


def stored_sample(checkpoint: AttributedCheckpoint, *, shards: int, rows: int) -> StoredSample:
    """Return the first `rows` examples of each of `shards` shards, evenly spaced among all.

    Raises:
        MismatchError: an example of the sample is no longer in `training_examples`, or has changed.
    """
    stored, device = checkpoint.stored.factors, checkpoint.model.device
    layers = list(checkpoint.stored.record.layer_shapes)
    first_positions = stored.first_positions
    examples: list[TokenizedExample] = []
    positions: list[int] = []
    factors = []
    for file in stored.files[:: max(1, -(-len(stored.files) // shards))]:
        factors.append(next(stored.blocks(layers, rows, device, [file])))
        count = min(rows, file.rows)
        examples += _tokenized(checkpoint, file, count)
        positions += range(first_positions[file.shard], first_positions[file.shard] + count)
    joined = {
        layer: GradientFactors(torch.cat([f[layer].u for f in factors]), torch.cat([f[layer].v for f in factors]))
        for layer in layers
    }
    return StoredSample(tuple(examples), tuple(positions), joined)


def reconstruction_errors(
    checkpoint: AttributedCheckpoint, sample: StoredSample, batch_tokens: int
) -> dict[str, LayerReconstruction]:
    """Compute the sample's gradients again, whitened as the stored ones were, and compare each layer's factors with them."""
    attributed, record = checkpoint.model, checkpoint.stored.record
    codec = FactorCodec(attributed.recipe.factor_dtype)
    gradients = {
        layer: torch.empty(len(sample.examples), *shape, device=attributed.device)
        for layer, shape in record.layer_shapes.items()
    }
    for at, batch in attributed.gradients(sample.examples, batch_tokens):
        for layer, computed in batch.gradients.items():
            gradients[layer][at] = computed.to(gradients[layer])
    errors = {}
    for layer, shape in record.layer_shapes.items():
        g, stored = gradients.pop(layer), sample.factors[layer]
        if bases := checkpoint.stored.bases(layer, attributed.device):
            g = bases.whitened(g)
        factors = low_rank_factors(g, stored.u.shape[2], rounds=attributed.recipe.factor_rounds)
        recomputed = decode(encode(factors, codec), codec, *shape)
        errors[layer] = LayerReconstruction(reconstruction_error(g, stored), reconstruction_error(g, recomputed))
    return errors


def own_ranks(checkpoint: AttributedCheckpoint, sample: StoredSample, batch: BatchSettings) -> list[int]:
    """Take each example of the sample as a query, and return its own rank among all stored examples, from 1; ties share.

    The rank is the better one of those by score and by relative influence: a longer example that says the same and more may
    well have the larger score.
    """
    factors = checkpoint.stored.factors
    queries = preconditioned_queries(checkpoint, sample.examples, batch)
    own = _both_rankings(ScoredBlock.of(queries.by_layer, sample.factors, queries.norm_weights))
    own = own.diagonal(dim1=1, dim2=2).unsqueeze(2)
    # The same product in blocks of another size rounds differently: an example must not outrank itself.
    own = own + 1e-5 * own.abs()
    above = torch.zeros(own.shape[:2], dtype=torch.long, device=own.device)
    for block in PlainScorer(factors, queries, batch.scan_rows).blocks(factors.files, own.device):
        above += (_both_rankings(block) > own).sum(2)
    return (above.amin(0) + 1).tolist()


def _both_rankings(block: ScoredBlock) -> Float[Tensor, "2 Q n"]:
    return torch.stack([block.scores, block.relative])


def _tokenized(checkpoint: AttributedCheckpoint, file: FactorFile, count: int) -> list[TokenizedExample]:
    stored, lake = checkpoint.stored.factors, checkpoint.stored.lake
    rows = lake.read(TRAINING_EXAMPLES, shard=file.shard).sort("row")
    batches = lake.stream_factors([file], ["example_id"], count)
    ids: list[str] = next(batches)[1].column("example_id").to_pylist()
    examples = checkpoint.model.tokenized(rows.filter(pl.col("example_id").is_in(ids)).to_arrow()).examples
    by_id = {example.example_id: example for example in examples}
    same_data = not rows.is_empty() and rows["shard_hash"][0] == stored.shard_hashes[file.shard]
    if not same_data or by_id.keys() != set(ids):
        raise MismatchError(
            f"the shard {file.shard!r} in `training_examples` is not what its gradient factors were computed from; "
            "materialize `gradient_factors` for it again"
        )
    return [by_id[name] for name in ids]
