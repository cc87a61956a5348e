"""What can be looked at: checkpoints with scores, query sets, their queries."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from lorif_assets.config.methods import METHODS, MethodName
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.query_objectives import SCALAR, Effects, asks_for_loss, effects, value_name
from lorif_assets.data.content.scalars import require_unchanged
from lorif_assets.data.content.weighted_sets import WEIGHTED, member_rows
from lorif_assets.data.passages import Part, passage_metadata, passage_parts, passage_text
from lorif_assets.errors import NotStoredError
from lorif_assets.lake.attribution_tables import CHECKPOINTS, QUERY_SUMMARIES
from lorif_assets.lake.data_tables import EXAMPLE_CONTENT, QUERY_EXAMPLES
from lorif_assets.lake.evaluation_tables import METHOD_COSTS
from lorif_assets.lake.lake import Lake

_SUMMARY = ["query_id", "loss", "n_target_tokens", "n_examples", "score_std", "top_10_share", "top_100_share"]


@dataclass(frozen=True)
class ScoredCheckpoint:
    """A checkpoint that has scores, and the query sets that it has them for."""

    name: str
    step: int | None
    query_sets: tuple[str, ...]


@dataclass(frozen=True)
class ScoredQuery:
    """A query as it is stored, with its loss (nats, summed) and how its scores are spread at a checkpoint.

    `objective` says what is asked about where that is not the loss of all that was said, as a line of a query file does
    (`span`, `against`, `weighted`, `scalar`); `loss` is then its value.
    `score_std` is the standard deviation of all its scores; the shares (0 to 1) are those of the sum of its positive scores
    that the 10 and 100 highest hold.
    """

    query_set: str
    query_id: str
    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]
    loss: float
    n_target_tokens: int
    n_examples: int
    score_std: float
    top_10_share: float
    top_100_share: float
    objective: Mapping[str, Any] = field(default_factory=dict)

    @property
    def loss_per_token(self) -> float | None:
        """Mean loss of the tokens that carry loss, in nats; None where something other than a loss is asked about."""
        return self.loss / max(self.n_target_tokens, 1) if asks_for_loss(self.objective) else None

    @property
    def value_name(self) -> str:
        """What `loss` is: a loss, or what the query asks about instead."""
        return value_name(self.objective)

    @property
    def effects(self) -> Effects:
        """What training on proponents and opponents did."""
        return effects(self.objective)

    @property
    def members(self) -> list[tuple[float, tuple[Part, ...]]]:
        """Of a weighted set, each member's weight and what it says, piece by piece."""
        return [(weight, passage_parts(row)) for weight, row in member_rows(self.objective)]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(part.text for part in self.parts)


def scored_checkpoints(lake: Lake) -> list[ScoredCheckpoint]:
    """Return the checkpoints that have scores, in order of step, then name."""
    steps: dict[str, int | None] = dict(lake.read(CHECKPOINTS, ["checkpoint", "step"]).iter_rows())
    scored: dict[str, list[str]] = {}
    for checkpoint, query_set in lake.read(QUERY_SUMMARIES, ["checkpoint", "query_set"]).unique().sort(pl.all()).rows():
        scored.setdefault(checkpoint, []).append(query_set)
    found = [ScoredCheckpoint(name, steps.get(name), tuple(sets)) for name, sets in scored.items()]
    return sorted(found, key=lambda one: (-1 if one.step is None else one.step, one.name))


def has_scored_queries(lake: Lake, checkpoint: str, query_set: str) -> bool:
    """Whether any query that a set has now is scored at a checkpoint."""
    scored = lake.read(QUERY_SUMMARIES, ["query_id"], checkpoint=checkpoint, query_set=query_set)["query_id"]
    return not {*scored}.isdisjoint(lake.read(QUERY_EXAMPLES, ["query_id"], query_set=query_set)["query_id"])


def scored_queries(lake: Lake, checkpoint: str, query_set: str) -> list[ScoredQuery]:
    """Return the queries of a set that are scored at a checkpoint, in the order of their file.

    Raises:
        NotStoredError: there are none.
    """
    return queries_of(scored_rows(lake, checkpoint, query_set))


def scored_rows(lake: Lake, checkpoint: str, query_set: str) -> pl.DataFrame:
    """Return the rows of the queries of a set that are scored at a checkpoint, in the order of their file.

    Raises:
        NotStoredError: there are none.
    """
    summaries = lake.read(QUERY_SUMMARIES, _SUMMARY, checkpoint=checkpoint, query_set=query_set)
    content = lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row")
    rows = content.join(summaries, on="query_id", how="inner", maintain_order="left")
    if rows.is_empty():
        there = ", ".join(
            f"{one.name} has scores of {' and '.join(map(repr, one.query_sets))}" for one in scored_checkpoints(lake)
        )
        raise NotStoredError(
            f"the lake has no scores of the queries that the set {query_set!r} has now at the checkpoint {checkpoint!r}; "
            f"{there or 'it has none'}. Name one of these, or materialize `query_scores`"
        )
    return rows


def queries_of(rows: pl.DataFrame) -> list[ScoredQuery]:
    """Return the queries of rows of `scored_rows`."""
    return [
        ScoredQuery(
            query_set=row["query_set"],
            query_id=row["query_id"],
            parts=passage_parts(row),
            metadata=passage_metadata(row),
            objective=json.loads(row["objective"] or "{}"),
            **{name: row[name] for name in _SUMMARY[1:]},
        )
        for row in rows.iter_rows(named=True)
    ]


def scored_query(lake: Lake, checkpoint: str, query_set: str, query_id: str | None) -> ScoredQuery:
    """Return one query of a set; without an id, the first.

    Raises:
        NotStoredError: it is not there, or not scored.
    """
    rows = scored_rows(lake, checkpoint, query_set)
    wanted = rows if query_id is None else rows.filter(pl.col("query_id") == query_id)
    if not wanted.is_empty():
        (query,) = queries_of(wanted.head(1))
        return query
    first = ", ".join(map(repr, rows["query_id"].head(5)))
    raise NotStoredError(
        f"the query set {query_set!r} has no query {query_id!r} at {checkpoint!r}: its {rows.height} begin with {first}"
    )


def stored_line(lake: Lake, query_set: str, query_id: str) -> dict[str, Any]:
    """Return a stored query as a line of a query file has it: its content, and what it asks about.

    Raises:
        NotStoredError: it is not there.
        MismatchError: the code of its scalar changed since it was read.
    """
    columns = [name for name in EXAMPLE_CONTENT if name not in {"format", "content_hash", "metadata"}]
    rows = lake.read(QUERY_EXAMPLES, [*columns, "objective"], query_set=query_set, query_id=query_id).to_dicts()
    if not rows:
        raise NotStoredError(f"the lake has no query {query_id!r} in the query set {query_set!r}")
    asked = json.loads(rows[0]["objective"] or "{}")
    if WEIGHTED in asked:
        # The query's own content is that of the first member.
        return {WEIGHTED: asked[WEIGHTED]}
    if SCALAR in asked:
        require_unchanged(asked[SCALAR])
        asked = {SCALAR: asked[SCALAR]["name"]}
    content = {name: rows[0][name] for name in columns if rows[0][name] is not None}
    if "messages" in content:
        content |= Conversation.parse(content["messages"]).fields()
    return {**content, **asked}


def query_texts(lake: Lake, query_set: str) -> dict[str, str]:
    """Return what the queries of a set say, by id."""
    rows = lake.read(QUERY_EXAMPLES, query_set=query_set)
    return {row["query_id"]: passage_text(row) for row in rows.iter_rows(named=True)}


def query_contents(lake: Lake, query_set: str) -> dict[str, tuple[tuple[Part, ...], Mapping[str, Any]]]:
    """Return by id what the queries of a set say piece by piece, and what they ask about as `ScoredQuery.objective` has it."""
    rows = lake.read(QUERY_EXAMPLES, query_set=query_set)
    return {
        row["query_id"]: (passage_parts(row), json.loads(row["objective"] or "{}"))
        for row in rows.iter_rows(named=True)
    }


def scored_methods(lake: Lake, checkpoint: str, query_set: str) -> list[str]:
    """Return the methods that scores are stored of: LoRIF first, then those that an evaluation kept."""
    kept = set(lake.read(METHOD_COSTS, ["method"], checkpoint=checkpoint, query_set=query_set)["method"])
    order = list(METHODS)
    others = sorted(
        kept - {MethodName.LORIF.value}, key=lambda name: (order.index(name) if name in order else len(order), name)
    )
    return [MethodName.LORIF.value, *others]
