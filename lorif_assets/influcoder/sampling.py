"""Anchors and pool: which of the user's queries and examples the encoder is trained on, and which only measure it.

An example's role and split depend on its content alone, so that an example that measured one encoder never trains a
later one, however the data grow. No two sampled texts are near-duplicates.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl

from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.data.passages import passages
from lorif_assets.errors import SourceError
from lorif_assets.influcoder.text_views import Decode, pool_text
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake

_LEAST = 2
_SPARE = 3
"""How many times more texts are read than are needed: some are near-duplicates, or have a role that is full."""


class Role(StrEnum):
    """What a sampled text is used as."""

    ANCHOR = "anchor"
    POOL = "pool"


class Split(StrEnum):
    """What it is used for: training or measurement."""

    DISTIL = "distil"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class SampledText:
    """One query or example, and what it was drawn for. `source` is its query set or shard."""

    role: Role
    split: Split
    source: str
    example_id: str
    row: Mapping[str, Any]


def draw_sample(
    lake: Lake, settings: InflucoderSettings, decode: Decode, anchors_of: Collection[tuple[str, str]] | None = None
) -> list[SampledText]:
    """Draw anchors and pool: anchors first, and the distilled texts of each before the held-out ones.

    Where anchors are queries, they come from all query sets of the lake.

    Args:
        lake: with queries and training examples.
        settings: how many of each.
        decode: token ids to text.
        anchors_of: queries by set and id that anchors are drawn from; None: what `anchor_texts` says.

    Raises:
        SourceError: there are too few different texts for one of the four purposes.
    """
    sizes = {
        (Role.ANCHOR, Split.DISTIL): settings.anchors,
        (Role.ANCHOR, Split.HELD_OUT): settings.held_out_anchors,
        (Role.POOL, Split.DISTIL): settings.pool,
        (Role.POOL, Split.HELD_OUT): settings.held_out_pool,
    }
    n_anchors = settings.anchors + settings.held_out_anchors
    queries = lake.read(QUERY_EXAMPLES)
    if anchors_of is not None:
        names = pl.DataFrame(sorted(anchors_of), schema=["query_set", "query_id"], orient="row")
        queries = queries.join(names, on=["query_set", "query_id"], how="semi")
    queries = queries.unique("content_hash", keep="first", maintain_order=True).sort("content_hash")
    takes_queries = settings.anchor_texts == "queries" or anchors_of is not None
    if takes_queries or (settings.anchor_texts == "auto" and queries.height >= n_anchors):
        rows = list(queries.rename({"query_id": "example_id", "query_set": "source"}).iter_rows(named=True))
        roles = {purpose: n for purpose, n in sizes.items() if purpose[0] is Role.ANCHOR}
        ordered = sorted(rows, key=lambda row: _key(settings.seed, row["content_hash"]))
        anchors = _dealt(ordered, roles, settings.seed, decode)
        pool = {purpose: n for purpose, n in sizes.items() if purpose[0] is Role.POOL}
        examples = _leading_examples(lake, settings.seed, sum(pool.values()))
        sampled = [*anchors, *_dealt(examples, pool, settings.seed, decode, other_rows=[one.row for one in anchors])]
    else:
        examples = _leading_examples(lake, settings.seed, sum(sizes.values()))
        sampled = _dealt(examples, sizes, settings.seed, decode)
    counts = Counter((one.role, one.split) for one in sampled)
    for role, split in sizes:
        if counts[role, split] < _LEAST:
            raise SourceError(
                f"only {counts[role, split]} texts could be drawn as {split} {role}, of {len(sampled)} in all that differ "
                f"enough; Influcoder needs at least {_LEAST}. Lower `influcoder.pool` and `influcoder.anchors`, or add data"
            )
    return sorted(sampled, key=lambda one: (one.role, one.split))


def _leading_examples(lake: Lake, seed: int, n: int) -> list[Mapping[str, Any]]:
    """Return the first examples in the order that the seed gives, several times as many as are needed."""
    index = lake.read(TRAINING_EXAMPLES, ["shard", "example_id", "content_hash"]).sort("shard", "example_id")
    index = index.unique("content_hash", keep="first", maintain_order=True)
    ordered = sorted(index.iter_rows(), key=lambda row: _key(seed, row[2]))[: _SPARE * n]
    content = passages(lake, ((shard, name) for shard, name, _ in ordered))
    return [{**content[shard, name], "source": shard} for shard, name, _ in ordered]


def _dealt(
    rows: Sequence[Mapping[str, Any]],
    sizes: Mapping[tuple[Role, Split], int],
    seed: int,
    decode: Decode,
    other_rows: Sequence[Mapping[str, Any]] = (),
) -> list[SampledText]:
    """Deal rows, in their order, to the purposes until each has its size or no row is left."""
    from lorif_assets.mathematics.influcoder.leakage import without_near_duplicates

    before = len(other_rows)
    different = without_near_duplicates([pool_text(row, decode) for row in (*other_rows, *rows)])
    places = dict(sizes)
    dealt = []
    for row in (rows[position - before] for position in different if position >= before):
        role, split = _purpose(sizes, _share(seed, row["content_hash"]))
        if places[role, split]:
            places[role, split] -= 1
            dealt.append(SampledText(role, split, row["source"], row["example_id"], row))
    return dealt


def _purpose(sizes: Mapping[tuple[Role, Split], int], share: float) -> tuple[Role, Split]:
    total, passed = sum(sizes.values()), 0
    for purpose, n in sizes.items():
        passed += n
        if share * total < passed:
            return purpose
    raise ValueError(f"a share lies in [0, 1), found {share}")


def _key(seed: int, content_hash: str) -> bytes:
    return blake2b(f"{seed}|order|{content_hash}".encode(), digest_size=8).digest()


def _share(seed: int, content_hash: str) -> float:
    digest = blake2b(f"{seed}|purpose|{content_hash}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def deal_again(held_out: Sequence[bool], seed: int) -> list[bool]:
    """Return which of the sampled texts are held out under another seed; their number stays the same."""
    return np.random.default_rng(seed).permutation(np.asarray(held_out, dtype=np.bool_)).tolist()
