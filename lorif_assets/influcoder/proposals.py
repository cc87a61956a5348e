"""What an encoder proposes for queries: the examples whose embeddings are most and least similar to theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.influcoder.nearest import approximately_nearest
from lorif_assets.influcoder.stored import StoredEncoder, in_order_of, shard_embeddings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Proposals:
    """Positions of examples to score, rising; cosines [Q, m] of the examples asked for; how they were searched for."""

    positions: list[int]
    asked: "torch.Tensor"
    metadata: dict[str, Any]


def proposals(
    stored: StoredFactors,
    encoder: StoredEncoder,
    queries: "torch.Tensor",
    candidates: int,
    asked: Sequence[int],
    settings: InflucoderSettings,
) -> Proposals:
    """Return the positions that lie among the n most or the n least similar of any query.

    Args:
        stored: factors, whose order counts.
        encoder: of the embeddings.
        queries: their embeddings, unit norm.
        candidates: n.
        asked: positions whose cosines are wanted besides.
        settings: where exact search ends.

    Raises:
        MismatchError: embeddings are missing or of another encoder or other data.
        SettingsError: there are too many examples for exact search, and faiss is not installed.
    """
    if stored.n_examples <= settings.exact_up_to:
        similarities = encoder_similarities(stored, encoder, queries)
        both = {*likely_proponents(similarities, candidates), *likely_proponents(-similarities, candidates)}
        return Proposals(sorted(both), similarities[:, list(asked)], {"search": "exact"})
    named = stored.example_ids(asked)
    nearest = approximately_nearest(
        stored.lake,
        encoder,
        stored.shard_hashes,
        queries,
        candidates,
        settings,
        [named[position] for position in asked],
    )
    positions = []
    for shard in stored.shard_hashes:
        wanted = {name for name, of_shard in nearest.examples.values() if of_shard == shard}
        if wanted:
            # Shard by shard: the ids of all of them would not fit where an approximate index is needed.
            places = stored.positions({shard})
            positions += [place for (_, name), place in places.items() if name in wanted]
    return Proposals(sorted(positions), nearest.asked, nearest.metadata)


def encoder_similarities(
    stored: StoredFactors,
    encoder: StoredEncoder,
    queries: "torch.Tensor",
) -> "torch.Tensor":
    """Return cosines [Q, N] of query embeddings and all examples, in the order of the stored factors.

    Raises:
        MismatchError: embeddings are missing or of another encoder or other data.
    """
    import torch

    blocks = []
    for file, embedded in zip(stored.files, shard_embeddings(stored.lake, encoder, stored.shard_hashes), strict=True):
        ids = [
            name
            for _, batch in stored.lake.stream_factors([file], ["example_id"], file.rows)
            for name in batch.column("example_id").to_pylist()
        ]
        blocks.append(queries @ in_order_of(embedded, ids).mT)
    return torch.cat(blocks, dim=1)


def likely_proponents(similarities: "torch.Tensor", candidates: int) -> list[int]:
    """Return the positions, rising, that lie among the n most similar of any query."""
    return sorted({*similarities.topk(min(candidates, similarities.shape[1]), dim=1).indices.flatten().tolist()})
