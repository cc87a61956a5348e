"""What an encoder proposes for queries: the examples with the most and the least similar embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.influcoder.nearest import approximately_nearest
from lorif_assets.influcoder.stored import StoredEncoder, in_order_of, shard_embeddings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Proposals:
    """Positions of examples to score, ascending; cosines [Q, m] of the extra examples; how proposals were searched for."""

    positions: list[int]
    extra_cosines: "torch.Tensor"
    metadata: dict[str, Any]


def proposals(
    factors: StoredFactors,
    encoder: StoredEncoder,
    queries: "torch.Tensor",
    candidates: int,
    extra_positions: Sequence[int],
    settings: InflucoderSettings,
) -> Proposals:
    """Propose the examples that are among the n most or the n least similar to any query.

    Args:
        factors: factors, in whose order positions are counted.
        encoder: the one that made the embeddings.
        queries: their embeddings, unit norm.
        candidates: n.
        extra_positions: positions of further examples whose cosines are returned.
        settings: up to how many examples search is exact.

    Raises:
        MismatchError: embeddings are missing, or come from another encoder or other data.
        SettingsError: there are too many examples for exact search, and faiss is not installed.
    """
    if factors.n_examples <= settings.exact_up_to:
        similarities = encoder_similarities(factors, encoder, queries)
        both = {*likely_proponents(similarities, candidates), *likely_proponents(-similarities, candidates)}
        return Proposals(sorted(both), similarities[:, list(extra_positions)], {"search": "exact"})
    examples = factors.example_ids(extra_positions)
    nearest = approximately_nearest(
        factors.lake,
        encoder,
        factors.shard_hashes,
        queries,
        candidates,
        settings,
        [examples[position] for position in extra_positions],
    )
    positions = []
    for shard in factors.shard_hashes:
        names = {name for name, of_shard in nearest.examples.values() if of_shard == shard}
        if names:
            # Shard by shard: if an approximate index is needed, the ids of all shards would not fit in memory.
            places = factors.positions({shard})
            positions += [place for (_, name), place in places.items() if name in names]
    return Proposals(sorted(positions), nearest.extra_cosines, nearest.metadata)


def encoder_similarities(
    factors: StoredFactors,
    encoder: StoredEncoder,
    queries: "torch.Tensor",
) -> "torch.Tensor":
    """Return cosines [Q, N] of query embeddings and all examples, in the order of the stored factors.

    Raises:
        MismatchError: embeddings are missing, or come from another encoder or other data.
    """
    import torch

    blocks = []
    for file, embedded in zip(
        factors.files, shard_embeddings(factors.lake, encoder, factors.shard_hashes), strict=True
    ):
        ids = [
            name
            for _, batch in factors.lake.stream_factors([file], ["example_id"], file.rows)
            for name in batch.column("example_id").to_pylist()
        ]
        blocks.append(queries @ in_order_of(embedded, ids).mT)
    return torch.cat(blocks, dim=1)


def likely_proponents(similarities: "torch.Tensor", candidates: int) -> list[int]:
    """Return the positions, ascending, that are among the n most similar to any query."""
    return sorted({*similarities.topk(min(candidates, similarities.shape[1]), dim=1).indices.flatten().tolist()})
