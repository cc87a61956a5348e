"""The stored embeddings nearest to queries, where there are too many to compute every inner product."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from lorif_assets.attribution.stored.versions import embedding_index_version
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.errors import TableError
from lorif_assets.influcoder.extra import require_faiss
from lorif_assets.influcoder.stored import StoredEncoder, in_order_of, shard_embeddings
from lorif_assets.lake.influcoder_tables import INFLUENCE_EMBEDDINGS
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    import torch

    from lorif_assets.influcoder.approximate_index import ApproximateIndex
    from lorif_assets.mathematics.scores.scoring import ScoreExtremes

CHECKED_QUERIES = 8
"""Queries whose neighbours are also computed exactly, to measure how many of them the index finds."""
_FOLDER = "embedding_indexes"


@dataclass(frozen=True)
class Nearest:
    """What an approximate index found for each query, with exact cosines.

    `examples` has (example id, shard) of every position in `extremes`; `extra_cosines` the cosines [Q, m] of the extra
    examples. `recall` is the share of the exact neighbours, at both ends, that were found for a few queries.
    """

    extremes: "ScoreExtremes"
    examples: Mapping[int, tuple[str, str]]
    extra_cosines: "torch.Tensor"
    recall: float
    seconds_building: float

    @property
    def metadata(self) -> dict[str, Any]:
        """What to show of the search."""
        return {
            "search": "approximate",
            "search_recall": self.recall,
            "search_checked_queries": min(CHECKED_QUERIES, len(self.extremes.highest)),
            "search_seconds_building": self.seconds_building,
        }


def embedded_examples(lake: Lake, encoder: StoredEncoder, shard_hashes: Mapping[str, str]) -> int:
    """Return how many embeddings these shards have."""
    rows = lake.read(INFLUENCE_EMBEDDINGS, ["shard"], checkpoint=encoder.checkpoint)
    return rows.filter(pl.col("shard").is_in(list(shard_hashes))).height


def approximately_nearest(
    lake: Lake,
    encoder: StoredEncoder,
    shard_hashes: Mapping[str, str],
    queries: "torch.Tensor",
    k: int,
    settings: InflucoderSettings,
    extra_examples: Sequence[tuple[str, str]] = (),
) -> Nearest:
    """Return about the k most and the k least similar examples of each query.

    The index is built if the lake has none for this encoder and these data. Then every embedding is read once, for the
    exact cosines and for the recall.

    Args:
        lake: where the embeddings are.
        encoder: the one that made them.
        shard_hashes: of the shards to search.
        queries: their embeddings [Q, h], unit norm.
        k: how many at each end.
        settings: have the share of the cells to probe.
        extra_examples: (example id, shard) of further examples whose cosines are returned.

    Raises:
        MismatchError: embeddings are missing, or come from another encoder or other data.
        SettingsError: faiss is not installed.
    """
    require_faiss()
    import torch

    from lorif_assets.mathematics.scores.scoring import ScoreExtremes

    started = time.monotonic()
    index, built = _stored_index(lake, encoder, shard_hashes, settings.seed)
    seconds_building = time.monotonic() - started if built else 0.0
    highest, lowest = (index.search(sign * queries, k, settings.probed_share) for sign in (1, -1))
    positions = torch.cat([highest, lowest], dim=1)
    cosines, extra_cosines = torch.empty(positions.shape), torch.empty(len(queries), len(extra_examples))
    exact = ScoreExtremes.empty(min(CHECKED_QUERIES, len(queries)), highest.shape[1])
    examples: dict[int, tuple[str, str]] = {}
    first = 0
    for shard in shard_embeddings(lake, encoder, shard_hashes):
        n = len(shard.example_ids)
        inside = (positions >= first) & (positions < first + n)
        for query in inside.any(dim=1).nonzero().flatten().tolist():
            at = positions[query, inside[query]]
            cosines[query, inside[query]] = shard.embeddings[at - first] @ queries[query]
            examples |= {position: (shard.example_ids[position - first], shard.shard) for position in at.tolist()}
        columns = [column for column, (_, of_shard) in enumerate(extra_examples) if of_shard == shard.shard]
        if columns:
            extra_cosines[:, columns] = (
                queries @ in_order_of(shard, [extra_examples[column][0] for column in columns]).mT
            )
        exact = exact.update(queries[: len(exact.highest)] @ shard.embeddings.mT, first)
        first += n
    width = highest.shape[1]
    extremes = ScoreExtremes(
        k,
        *_sorted(cosines[:, :width], highest, descending=True),
        *_sorted(cosines[:, width:], lowest, descending=False),
    )
    return Nearest(extremes, examples, extra_cosines, _recall(extremes, exact), seconds_building)


def _stored_index(
    lake: Lake, encoder: StoredEncoder, shard_hashes: Mapping[str, str], seed: int
) -> "tuple[ApproximateIndex, bool]":
    """Return the index of an encoder's embeddings, and whether it had to be built; a new one replaces older ones."""
    from lorif_assets.influcoder.approximate_index import ApproximateIndex

    folder = f"{_FOLDER}/{encoder.checkpoint}"
    stem = f"{folder}/{embedding_index_version(encoder.encoder_hash, shard_hashes, seed)}"
    paths = [path for path, _ in lake.stored.sizes(folder)]
    for path in paths:
        if path.startswith(stem):
            try:
                return ApproximateIndex.from_bytes(lake.read_file(path)), False
            except TableError:
                # No row points to it: it is made again as if there were none.
                continue
    index = ApproximateIndex.build(
        lambda: (shard.embeddings for shard in shard_embeddings(lake, encoder, shard_hashes)),
        embedded_examples(lake, encoder, shard_hashes),
        seed,
    )
    new_path = lake.write_named_file(stem, ".faiss", index.to_bytes())
    for old_path in {*paths} - {new_path}:
        lake.stored.delete(old_path)
    return index, True


def _sorted(
    cosines: "torch.Tensor", positions: "torch.Tensor", *, descending: bool
) -> "tuple[torch.Tensor, torch.Tensor]":
    by_position = positions.argsort(dim=1)
    order = by_position.gather(1, cosines.gather(1, by_position).argsort(dim=1, descending=descending, stable=True))
    return cosines.gather(1, order), positions.gather(1, order)


def _recall(extremes: "ScoreExtremes", exact_extremes: "ScoreExtremes") -> float:
    """Return the share of exact neighbours that were found; among equally similar ones, any counts."""
    shares = [
        (extremes.highest[: len(exact_extremes.highest)] >= exact_extremes.highest[:, -1:] - 1e-6).double().mean(),
        (extremes.lowest[: len(exact_extremes.lowest)] <= exact_extremes.lowest[:, -1:] + 1e-6).double().mean(),
    ]
    return float(sum(shares) / 2)
