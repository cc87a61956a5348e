"""What a comparison of checkpoints says: plain, frozen data that the table, the page and the plot are made from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from statistics import fmean
from typing import Any

from lorif_assets.attribution.checkpoints.compared import Participants, ScoredCheckpoint
from lorif_assets.data.content.query_objectives import asks_for_loss, value_name
from lorif_assets.data.passages import Part
from lorif_assets.mathematics.scores.rank_overlap import rank_biased_overlap, top_overlap

LEADING = 10
DEPTH = 100
"""Ranks that are compared, at most: deeper ones have no weight left (0.9^100 is 3e-5)."""

Example = tuple[str, str]
"""Shard and id of a training example."""


@dataclass(frozen=True)
class Standing:
    """One query at one checkpoint: its value and at most DEPTH proponents, the leading one first.

    The value is its loss per token (nats), or that of the contrast, the weighted set or the scalar that it asks about.
    `relative_proponents` are those by relative influence; none where scores were stored without.
    """

    value: float
    proponents: tuple[Example, ...]
    relative_proponents: tuple[Example, ...] = ()

    @property
    def leading(self) -> tuple[Example, ...]:
        """The ten leading proponents, fewer where fewer are stored."""
        return self.proponents[:LEADING]

    def rank(self, example: Example) -> int | None:
        """Rank from 1; None for an example that is not among the stored proponents."""
        return self.proponents.index(example) + 1 if example in self.proponents else None


@dataclass(frozen=True)
class Transition:
    """One query at two checkpoints that follow each other."""

    older: Standing
    newer: Standing

    @cached_property
    def rank_biased_overlap(self) -> float:
        """Of all stored proponents, 0 to 1."""
        return rank_biased_overlap(self.older.proponents, self.newer.proponents)

    @cached_property
    def relative_overlap(self) -> float | None:
        """The same of the proponents by relative influence; None where a checkpoint's were not stored."""
        rankings = self.older.relative_proponents, self.newer.relative_proponents
        return rank_biased_overlap(*rankings) if all(rankings) else None

    @cached_property
    def overlap_at_10(self) -> float:
        """Share (0 to 1) of the ten leading proponents that stayed among them."""
        return top_overlap(self.older.proponents, self.newer.proponents, LEADING)

    @property
    def entered(self) -> tuple[Example, ...]:
        """The examples that newly are among the ten leading proponents, by their new rank."""
        return tuple(example for example in self.newer.leading if example not in self.older.leading)

    @property
    def left(self) -> tuple[Example, ...]:
        """The examples that no longer are among the ten leading proponents, by their old rank."""
        return tuple(example for example in self.older.leading if example not in self.newer.leading)

    @property
    def change(self) -> float:
        """Change of the value; of a loss negative if the completion became likelier."""
        return self.newer.value - self.older.value


@dataclass(frozen=True)
class QueryHistory:
    """One query along the checkpoints.

    `standings` has one entry per compared checkpoint, None where the query was not scored. `asked` says what it asks about
    where that is not the completion's loss, by the field of the query file, `turns` what stands in the place of prompt and
    completion of a chat. Of one that is no longer in the query set, it is not known what it asked about.
    """

    query_id: str
    prompt: str | None
    completion: str
    metadata: Mapping[str, Any]
    standings: tuple[Standing | None, ...]
    asked: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Part, ...] = ()
    is_in_set: bool = True

    @property
    def is_loss(self) -> bool:
        """Whether it asks about the loss of its completion, or of a span of it."""
        return self.is_in_set and asks_for_loss(self.asked)

    @property
    def value_name(self) -> str:
        """What its values are: losses, or what it asks about instead."""
        return value_name(self.asked) if self.is_in_set else "value"

    @cached_property
    def transitions(self) -> tuple[Transition | None, ...]:
        """One entry for each two neighbouring checkpoints, None where the query was not scored at both."""
        return tuple(Transition(older, newer) if older and newer else None for older, newer in pairwise(self.standings))

    @property
    def losses(self) -> tuple[float | None, ...]:
        """Loss per token at each checkpoint, nats; None where it was not scored, or asks about something else."""
        return self.values if self.is_loss else (None,) * len(self.standings)

    @property
    def values(self) -> tuple[float | None, ...]:
        """Its value at each checkpoint; None where it was not scored."""
        return tuple(standing.value if standing else None for standing in self.standings)

    @property
    def mean_rank_biased_overlap(self) -> float | None:
        """Mean over the transitions."""
        return mean(transition.rank_biased_overlap for transition in self.transitions if transition)


@dataclass(frozen=True)
class Passage:
    """What is readable of a training example."""

    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class ComparisonContent:
    """Everything that is said of one query set.

    `stale_checkpoints` names compared checkpoints whose scores are out of date: computed from other data, queries or weights
    than those stored. `passages` holds every example that entered or left; `provenance` is shown as given, in its order.
    """

    query_set: str
    compared: Participants
    stale_checkpoints: tuple[str, ...]
    queries: tuple[QueryHistory, ...]
    passages: Mapping[Example, Passage]
    created: datetime
    provenance: Mapping[str, str]

    @property
    def checkpoints(self) -> Sequence[ScoredCheckpoint]:
        """The compared checkpoints, the oldest first."""
        return self.compared.checkpoints

    @property
    def depth(self) -> int:
        """Number of proponents of a query that are compared."""
        standings = (standing for query in self.queries for standing in query.standings if standing)
        return max((len(standing.proponents) for standing in standings), default=0)

    @property
    def mean_losses(self) -> list[float | None]:
        """Mean loss per token (nats) of the queries at each checkpoint."""
        return [
            mean(loss for query in self.queries if (loss := query.losses[index]) is not None)
            for index in range(len(self.checkpoints))
        ]

    @property
    def mean_rank_biased_overlaps(self) -> list[float | None]:
        """Mean over the queries for each two neighbouring checkpoints."""
        return [mean(t.rank_biased_overlap for t in self.transitions(i)) for i in range(len(self.compared.neighbours))]

    @property
    def mean_overlaps_at_10(self) -> list[float | None]:
        """Mean over the queries for each two neighbouring checkpoints."""
        return [mean(t.overlap_at_10 for t in self.transitions(i)) for i in range(len(self.compared.neighbours))]

    @property
    def mean_relative_overlaps(self) -> list[float | None]:
        """Mean over the queries for each two neighbouring checkpoints, of the rankings by relative influence."""
        return [
            mean(overlap for t in self.transitions(i) if (overlap := t.relative_overlap) is not None)
            for i in range(len(self.compared.neighbours))
        ]

    def transitions(self, index: int) -> list[Transition]:
        """Return those of all queries between the checkpoints `index` and `index` + 1."""
        return [transition for query in self.queries if (transition := query.transitions[index])]


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, or None of no values."""
    found = list(values)
    return fmean(found) if found else None
