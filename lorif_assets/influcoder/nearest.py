"""The nearest stored embeddings of queries beyond the numbers where every inner product is computed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.fs as pafs

from lorif_assets.attribution.versions import embedding_index_version
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.influcoder.extra import require_faiss
from lorif_assets.influcoder.stored import StoredEncoder, in_order_of, shard_embeddings
from lorif_assets.lake.influcoder_tables import INFLUENCE_EMBEDDINGS
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    import torch

    from lorif_assets.influcoder.approximate_index import ApproximateIndex
    from lorif_assets.mathematics.scores.scoring import ScoreExtremes

CHECKED_QUERIES = 8
"""Queries whose neighbours are also computed exactly, to say how many of them the index finds."""
_FOLDER = "embedding_indexes"


@dataclass(frozen=True)
class Nearest:
    """What an approximate index found of each query: the cosines of what was found are exact.

    `examples` has (example id, shard) of every position in `extremes`; `asked` the cosines [Q, m] of the examples that
    were asked for besides. `recall` is the share of the exact neighbours, of both ends, that it found for a few queries.
    """

    extremes: "ScoreExtremes"
    examples: Mapping[int, tuple[str, str]]
    asked: "torch.Tensor"
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
    asked: Sequence[tuple[str, str]] = (),
) -> Nearest:
    """Return about the k most and the k least similar examples of each query.

    The index is built where the lake has none of this encoder and data. Every embedding is then read once, for the exact
    cosines and for the recall.

    Args:
        lake: where the embeddings are.
        encoder: of which they are.
        shard_hashes: of the shards to search.
        queries: their embeddings [Q, h], unit norm.
        k: how many of each end.
        settings: which share of the cells is probed.
        asked: (example id, shard) of further examples whose cosines are wanted.

    Raises:
        MismatchError: embeddings are missing or of another encoder or other data.
        SettingsError: faiss is not installed.
    """
    require_faiss()
    import torch

    from lorif_assets.mathematics.scores.scoring import ScoreExtremes

    started = time.monotonic()
    index, built = _stored_index(lake, encoder, shard_hashes, settings.seed)
    seconds_building = time.monotonic() - started if built else 0.0
    highest, lowest = (index.search(sign * queries, k, settings.probed_share) for sign in (1, -1))
    found = torch.cat([highest, lowest], dim=1)
    cosines, of_asked = torch.empty(found.shape), torch.empty(len(queries), len(asked))
    exact = ScoreExtremes.empty(min(CHECKED_QUERIES, len(queries)), highest.shape[1])
    examples: dict[int, tuple[str, str]] = {}
    first = 0
    for shard in shard_embeddings(lake, encoder, shard_hashes):
        n = len(shard.example_ids)
        inside = (found >= first) & (found < first + n)
        for query in inside.any(dim=1).nonzero().flatten().tolist():
            at = found[query, inside[query]]
            cosines[query, inside[query]] = shard.embeddings[at - first] @ queries[query]
            examples |= {position: (shard.example_ids[position - first], shard.shard) for position in at.tolist()}
        columns = [column for column, (_, of_shard) in enumerate(asked) if of_shard == shard.shard]
        if columns:
            of_asked[:, columns] = queries @ in_order_of(shard, [asked[column][0] for column in columns]).mT
        exact = exact.update(queries[: len(exact.highest)] @ shard.embeddings.mT, first)
        first += n
    width = highest.shape[1]
    extremes = ScoreExtremes(
        k,
        *_sorted(cosines[:, :width], highest, descending=True),
        *_sorted(cosines[:, width:], lowest, descending=False),
    )
    return Nearest(extremes, examples, of_asked, _recall(extremes, exact), seconds_building)


def _stored_index(
    lake: Lake, encoder: StoredEncoder, shard_hashes: Mapping[str, str], seed: int
) -> "tuple[ApproximateIndex, bool]":
    """Return the index of an encoder's embeddings, and whether it had to be built, which takes the place of older ones."""
    from lorif_assets.influcoder.approximate_index import ApproximateIndex

    folder = f"{_FOLDER}/{encoder.checkpoint}"
    path = f"{folder}/{embedding_index_version(encoder.encoder_hash, shard_hashes, seed)}.faiss"
    files = lake.files
    there = [info.path for info in files.get_file_info(pafs.FileSelector(folder, allow_not_found=True))]
    if path in there:
        return ApproximateIndex.from_bytes(lake.read_file(path)), False
    index = ApproximateIndex.build(
        lambda: (shard.embeddings for shard in shard_embeddings(lake, encoder, shard_hashes)),
        embedded_examples(lake, encoder, shard_hashes),
        seed,
    )
    lake.write_file(path, index.to_bytes())
    for older in there:
        files.delete_file(older)
    return index, True


def _sorted(
    cosines: "torch.Tensor", positions: "torch.Tensor", *, descending: bool
) -> "tuple[torch.Tensor, torch.Tensor]":
    by_position = positions.argsort(dim=1)
    order = by_position.gather(1, cosines.gather(1, by_position).argsort(dim=1, descending=descending, stable=True))
    return cosines.gather(1, order), positions.gather(1, order)


def _recall(found: "ScoreExtremes", exact: "ScoreExtremes") -> float:
    """Share of exact neighbours that were found. Of equal ones, any counts: what matters is how similar they are."""
    shares = [
        (found.highest[: len(exact.highest)] >= exact.highest[:, -1:] - 1e-6).double().mean(),
        (found.lowest[: len(exact.lowest)] <= exact.lowest[:, -1:] + 1e-6).double().mean(),
    ]
    return float(sum(shares) / 2)
