"""What an attribution report says: plain, frozen data that the page and the plots are drawn from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lorif_assets.data.content.query_objectives import Effects, asks_for_loss, effects, value_name
from lorif_assets.data.content.weighted_sets import member_rows
from lorif_assets.data.passages import Part, passage_parts
from lorif_assets.influences.exact_ranks import ExactRank
from lorif_assets.pages.token_colours import PairTokens


@dataclass(frozen=True)
class NearDuplicate:
    """An example that says nearly the same as one that ranks higher."""

    rank: int
    example_id: str
    score: float


@dataclass(frozen=True)
class Influence:
    """One training example and its score for one query, relative to its size where the list is ranked so.

    `rank` counts from 1 within its list; `parts` are the passage, prompt and completion, or turns. `tokens` are those
    of both sides where their shares of the score are stored, `exact` its rank by whole gradients where that is, `duplicates`
    the near-duplicates that rank below it in the list, and are folded into it.
    """

    rank: int
    example_id: str
    shard: str
    score: float
    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]
    tokens: PairTokens | None = None
    exact: ExactRank | None = None
    duplicates: tuple[NearDuplicate, ...] = ()


@dataclass(frozen=True)
class GroupInfluence:
    """The influence of all training examples that share a value of their metadata, with a 95 % interval.

    The interval is by the standard error of the sum; NaN for a single example. With a `noise_share` (0 to 1, of the scores'
    mean square) the sum is of what each score is expected to be without its noise.
    """

    value: str
    n_examples: int
    score_sum: float
    low: float
    high: float
    noise_share: float | None = None


@dataclass(frozen=True)
class QueryInfluences:
    """One query, its loss, and the training examples with the highest and lowest scores.

    `loss` is summed over the completion's `n_target_tokens` tokens, in nats, or the value of what else it asks about.
    `n_examples` is the number of training examples that were scored, `score_std` the standard deviation of their scores.
    `top_10_share` and `top_100_share` are fractions (0 to 1) of the sum of all positive scores. The relative lists are empty
    where scores were stored without.
    """

    query_id: str
    prompt: str | None
    completion: str
    metadata: Mapping[str, Any]
    loss: float
    n_target_tokens: int
    n_examples: int
    score_std: float
    top_10_share: float
    top_100_share: float
    proponents: tuple[Influence, ...]
    opponents: tuple[Influence, ...]
    turns: tuple[Part, ...] = ()
    """Of a chat, what stands in the place of prompt and completion."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What it asks about, where that is not the completion's loss, by the field of the query file."""
    groups: Mapping[str, tuple[GroupInfluence, ...]] = field(default_factory=dict)
    """By column of the metadata, the groups with the largest sums by magnitude, the highest first."""
    relative_proponents: tuple[Influence, ...] = ()
    relative_opponents: tuple[Influence, ...] = ()

    @property
    def members(self) -> list[tuple[float, tuple[Part, ...]]]:
        """Of a weighted set, each member's weight and what it says."""
        return [(weight, passage_parts(row)) for weight, row in member_rows(self.asked)]

    @property
    def is_loss(self) -> bool:
        """Whether it asks about the loss of its completion, or of a span of it."""
        return asks_for_loss(self.asked)

    @property
    def value_name(self) -> str:
        """What `loss` is: a loss, or what the query asks about instead."""
        return value_name(self.asked)

    @property
    def effects(self) -> Effects:
        """What training on proponents and opponents did."""
        return effects(self.asked)

    @property
    def loss_per_token(self) -> float:
        """Mean loss of the completion's tokens, in nats; NaN without target tokens."""
        return self.loss / self.n_target_tokens if self.n_target_tokens else math.nan

    @property
    def perplexity(self) -> float:
        """The exponential of the loss per token; infinite where that exceeds a float."""
        try:
            return math.exp(self.loss_per_token)
        except OverflowError:
            return math.inf

    @property
    def largest_magnitude(self) -> float:
        """Largest finite absolute score among the listed examples, 0 if there is none: the scale of the bars."""
        return _largest_magnitude(self.proponents + self.opponents)

    @property
    def largest_relative_magnitude(self) -> float:
        """The same of the relative ranking."""
        return _largest_magnitude(self.relative_proponents + self.relative_opponents)


def _largest_magnitude(influences: tuple[Influence, ...]) -> float:
    magnitudes = (abs(influence.score) for influence in influences)
    return max((magnitude for magnitude in magnitudes if math.isfinite(magnitude)), default=0.0)


@dataclass(frozen=True)
class LayerCurvature:
    """Curvature of one layer, whose projected gradients have d1 x d2 entries.

    `eigenvalues` are leading ones, largest first; `trace` is the sum of all d1 * d2 of them; `damping` is in the same unit.
    Where a curvature has none of these, they are empty or NaN.
    """

    layer: str
    d1: int
    d2: int
    eigenvalues: tuple[float, ...]
    trace: float
    damping: float


@dataclass(frozen=True)
class LayerSpectrum(LayerCurvature):
    """A layer of which only the r leading eigenpairs are kept.

    `captured_energy` is the fraction (0 to 1) of the trace that they hold.
    """

    r: int
    captured_energy: float

    @property
    def n_above_damping(self) -> int:
        """Number of kept directions whose eigenvalue exceeds the damping."""
        return sum(eigenvalue > self.damping for eigenvalue in self.eigenvalues)


@dataclass(frozen=True)
class WhitenedLayer(LayerCurvature):
    """A layer with EK-FAC, which keeps all eigenvalues, and what is kept of each example's whitened gradient.

    `rank` components of `bytes_per_example` bytes in all, which hold a fraction `kept_energy` (0 to 1) of the whitened
    gradients' squared norm; None where the bases were stored without it.
    """

    rank: int
    bytes_per_example: int
    kept_energy: float | None

    @property
    def mean_eigenvalue(self) -> float:
        """Mean of all eigenvalues: what the damping is a multiple of."""
        return self.trace / (self.d1 * self.d2)


@dataclass(frozen=True)
class ReportContent:
    """Everything that one page shows: one checkpoint, one query set.

    `n_examples` counts the training examples of the store; `recipe` and `provenance` are shown as they are given, in
    their order. `rejected` says in a line each what was set aside of the training data and of the queries, and why.
    `comparison` is the address of the page that compares checkpoints, relative to this one, if there are
    several to compare. `notices` says in a line each what to know of the scores before reading them.
    """

    checkpoint: str
    query_set: str
    model_type: str
    n_parameters: int
    step: int | None
    n_examples: int
    recipe: Mapping[str, str | int | float]
    layers: tuple[LayerCurvature, ...]
    queries: tuple[QueryInfluences, ...]
    created: datetime
    provenance: Mapping[str, str]
    comparison: str | None = None
    rejected: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def has_exact(self) -> bool:
        """Whether leading examples were ranked again by whole gradients."""
        return any(one.exact for query in self.queries for one in (*query.proponents, *query.opponents))

    @property
    def has_tokens(self) -> bool:
        """Whether shares of single tokens are stored."""
        listed = (one for query in self.queries for one in (*query.proponents, *query.opponents))
        return any(one.tokens for one in listed)

    @property
    def has_relative(self) -> bool:
        """Whether the ranking by relative influence is stored."""
        return any(query.relative_proponents for query in self.queries)
