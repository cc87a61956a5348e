"""Anchors and pool: which of the user's queries and examples the encoder is taught on, and which only measure it.

An example's role and split follow from its content alone, so that an example that measured one encoder never teaches a
later one, however the data grows. No two sampled texts are near-duplicates.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import numpy as np

from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.data.passages import passages
from lorif_assets.errors import SourceError
from lorif_assets.influcoder.text_views import Decode, pool_text
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake

_LEAST = 2
_SPARE = 3
"""Texts are looked at in so many times the number wanted: some are near-duplicates, or of a role that is full."""


class Role(StrEnum):
    """What a sampled text stands for."""

    ANCHOR = "anchor"
    POOL = "pool"


class Split(StrEnum):
    """What it is used for."""

    DISTIL = "distil"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class Sampled:
    """One query or example, and what it was drawn for. `source` is its query set or shard."""

    role: Role
    split: Split
    source: str
    example_id: str
    row: Mapping[str, Any]


def draw_sample(lake: Lake, settings: InflucoderSettings, decode: Decode) -> list[Sampled]:
    """Draw anchors and pool: anchors first, the distilled ones before those held out.

    Where anchors are queries, they come from all query sets of the lake.

    Raises:
        SourceError: too few different texts are there for one of the four purposes.
    """
    wanted = {
        (Role.ANCHOR, Split.DISTIL): settings.anchors,
        (Role.ANCHOR, Split.HELD_OUT): settings.held_out_anchors,
        (Role.POOL, Split.DISTIL): settings.pool,
        (Role.POOL, Split.HELD_OUT): settings.held_out_pool,
    }
    n_anchors = settings.anchors + settings.held_out_anchors
    queries = lake.read(QUERY_EXAMPLES).unique("content_hash", keep="first").sort("content_hash")
    if settings.anchor_texts == "queries" or (settings.anchor_texts == "auto" and queries.height >= n_anchors):
        rows = list(queries.rename({"query_id": "example_id", "query_set": "source"}).iter_rows(named=True))
        roles = {purpose: n for purpose, n in wanted.items() if purpose[0] is Role.ANCHOR}
        ordered = sorted(rows, key=lambda row: _key(settings.seed, row["content_hash"]))
        anchors = _dealt(ordered, roles, settings.seed, decode)
        pool = {purpose: n for purpose, n in wanted.items() if purpose[0] is Role.POOL}
        examples = _leading_examples(lake, settings.seed, sum(pool.values()))
        sampled = [*anchors, *_dealt(examples, pool, settings.seed, decode, apart_from=[one.row for one in anchors])]
    else:
        examples = _leading_examples(lake, settings.seed, sum(wanted.values()))
        sampled = _dealt(examples, wanted, settings.seed, decode)
    counts = Counter((one.role, one.split) for one in sampled)
    for role, split in wanted:
        if counts[role, split] < _LEAST:
            raise SourceError(
                f"only {counts[role, split]} texts could be drawn as {split} {role}, of {len(sampled)} in all that differ "
                f"enough; Influcoder needs at least {_LEAST}. Lower `influcoder.pool` and `influcoder.anchors`, or add data"
            )
    return sorted(sampled, key=lambda one: (one.role, one.split))


def _leading_examples(lake: Lake, seed: int, n: int) -> list[Mapping[str, Any]]:
    """Return the examples that come first in the order that the seed gives, several times as many as are wanted."""
    index = lake.read(TRAINING_EXAMPLES, ["shard", "example_id", "content_hash"]).sort("shard", "example_id")
    index = index.unique("content_hash", keep="first", maintain_order=True)
    ordered = sorted(index.iter_rows(), key=lambda row: _key(seed, row[2]))[: _SPARE * n]
    content = passages(lake, ((shard, name) for shard, name, _ in ordered))
    return [{**content[shard, name], "source": shard} for shard, name, _ in ordered]


def _dealt(
    rows: Sequence[Mapping[str, Any]],
    wanted: Mapping[tuple[Role, Split], int],
    seed: int,
    decode: Decode,
    apart_from: Sequence[Mapping[str, Any]] = (),
) -> list[Sampled]:
    """Deal rows, in their order, to the purposes until each has as many as wanted or no row is left."""
    from lorif_assets.mathematics.influcoder.leakage import without_near_duplicates

    before = len(apart_from)
    different = without_near_duplicates([pool_text(row, decode) for row in (*apart_from, *rows)])
    left = dict(wanted)
    dealt = []
    for row in (rows[position - before] for position in different if position >= before):
        role, split = _purpose(wanted, _share(seed, row["content_hash"]))
        if left[role, split]:
            left[role, split] -= 1
            dealt.append(Sampled(role, split, row["source"], row["example_id"], row))
    return dealt


def _purpose(wanted: Mapping[tuple[Role, Split], int], share: float) -> tuple[Role, Split]:
    total, passed = sum(wanted.values()), 0
    for purpose, n in wanted.items():
        passed += n
        if share * total < passed:
            return purpose
    raise ValueError(f"a share lies in [0, 1), found {share}")


def _key(seed: int, content_hash: str) -> bytes:
    return blake2b(f"{seed}|order|{content_hash}".encode(), digest_size=8).digest()


def _share(seed: int, content_hash: str) -> float:
    digest = blake2b(f"{seed}|purpose|{content_hash}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def dealt_anew(held_out: Sequence[bool], seed: int) -> list[bool]:
    """Return which of the sampled texts are held out under another seed: as many as before."""
    return np.random.default_rng(seed).permutation(np.asarray(held_out, dtype=np.bool_)).tolist()
