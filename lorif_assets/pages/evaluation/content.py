"""What an evaluation page says: plain, frozen data that the page and the plots are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorif_assets.mathematics.evaluation.intervals import Estimate
    from lorif_assets.mathematics.gradients.projection import Projection


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95 % interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below zero, else 0: the figure may be chance."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True)
class Spread:
    """How the queries of a method differ; `above_zero` is a share of them, 0 to 1."""

    lowest: float
    median: float
    highest: float
    above_zero: float


@dataclass(frozen=True)
class Measured:
    """One metric of several methods, of which more is better.

    `differences` have, by method, by how much the reference's mean exceeds the method's, paired; `per_query` has the
    values of single queries, by method.
    """

    means: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    per_query: Mapping[str, Sequence[float]]

    @property
    def methods(self) -> Sequence[str]:
        """The methods, the best first."""
        return sorted(self.means, key=lambda method: -self.means[method].value)

    def spread(self, method: str) -> Spread | None:
        """Return how the queries of a method differ, or None if values of single queries are unknown."""
        values = self.per_query.get(method)
        if not values:
            return None
        return Spread(min(values), median(values), max(values), sum(value > 0 for value in values) / len(values))

    @property
    def reference(self) -> str | None:
        """The method that the others are compared with; None if there is none."""
        alone = [method for method in self.means if method not in self.differences]
        return alone[0] if len(alone) == 1 else None

    def compared(self, sign: int) -> Sequence[str]:
        """Return the methods, the farthest first, that the reference is surely better (1) or worse (-1) than, or neither."""
        chosen = [method for method, difference in self.differences.items() if difference.sign == sign]
        return sorted(chosen, key=lambda method: -abs(self.differences[method].value))


@dataclass(frozen=True)
class Cost:
    """What a method costs: bytes kept per training example, seconds on the training data (once) and on this query set.

    `shared_bytes` are kept once for all examples, here divided by their number; None where that is unknown.
    """

    bytes_per_example: float
    setup_seconds: float | None
    query_seconds: float
    shared_bytes: float | None = None


@dataclass(frozen=True)
class GroundTruthFigures:
    """What the linear datamodeling score was measured on, and how far that agrees with itself.

    `one_seed` and `all_seeds` are the correlations between two seeds, and between two averages over as many seeds as
    there are; `reachable_lds` is the largest LDS that the noise allows. They are None if one seed was trained.
    """

    subsets: int
    models: int
    one_seed: float | None
    all_seeds: float | None
    reachable_lds: float | None


@dataclass(frozen=True)
class QueryScatter:
    """Predicted against actual for one query, a point per subset, both less their means.

    `place` says which of the queries it is; `predicted` is the sum of a method's scores over the subset; `actual` is by
    how many nats the loss of the model retrained on the subset is lower than the mean over subsets.
    """

    place: str
    query_id: str
    prompt: str | None
    completion: str
    method: str
    lds: float
    predicted: Sequence[float]
    actual: Sequence[float]


@dataclass(frozen=True)
class Retrieval:
    """Retrieval of known sources: metrics by name, and mean ROC curves by method, of queries that have sources.

    `n_queries` counts those; `n_examples` are ranked.
    """

    metrics: Mapping[str, Measured]
    curves: Mapping[str, Sequence[float]]
    n_queries: int
    n_examples: int

    @property
    def methods(self) -> Sequence[str]:
        """The methods, the best first by the first metric there is, else by name."""
        for measured in self.metrics.values():
            return measured.methods
        return sorted(self.curves)


@dataclass(frozen=True)
class Removal:
    """What removing examples did: the rise of the query set's mean loss per token (nats), over seeds."""

    method: str
    n_removed: int
    rises: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return fmean(self.rises)


@dataclass(frozen=True)
class RemovalMeasures:
    """What retraining without proponents says of single queries: metrics by name, of the methods that chose them.

    `share` is that of the examples whose removal the loss differences are of, from 0 to 1; None where there are none.
    """

    metrics: Mapping[str, Measured]
    share: float | None

    @property
    def methods(self) -> Sequence[str]:
        """The methods, the best first by the first metric."""
        return next(iter(self.metrics.values())).methods


@dataclass(frozen=True)
class Selected:
    """What training on so many selected examples alone gave, by the method that selected them.

    `losses` are means over queries of the loss per token (nats), averaged over seeds; `lower_by` says by how much the
    reference's is lower than each other method's, paired. The best method comes first.
    """

    n_selected: int
    n_seeds: int
    losses: "Mapping[str, Estimate]"
    lower_by: "Mapping[str, Estimate]"

    @property
    def reference(self) -> str:
        """The method that the others are compared with."""
        return next(method for method in self.losses if method not in self.lower_by)


@dataclass(frozen=True)
class RecipeTrial:
    """A recipe that was tried: its fields, and its quality, LDS or (None) only the agreement with the dense inverse."""

    curvature: str
    projection: "Projection"
    rank: int | None
    r: int | None
    damping: float | None
    curvature_form: str
    factor_dtype: str
    bytes_per_example: float
    n_examples: int
    lds: Interval | None
    agreement: float | None
    seconds: float

    @property
    def family(self) -> str:
        """Curvature and number format: what a plot's colours mean."""
        return f"{self.curvature}, {self.factor_dtype}"


@dataclass(frozen=True)
class Missing:
    """What the page cannot show yet, and how to get it."""

    part: str
    remedy: str


@dataclass(frozen=True)
class EvaluationContent:
    """Everything that one page shows: one checkpoint, one query set. What was not measured is None or empty.

    `stale_results` says which figures are out of date; `provenance` is shown as given, in its order; `version` is the hash of
    what the page was made from.
    """

    checkpoint: str
    query_set: str
    model_type: str
    n_parameters: int
    step: int | None
    n_examples: int
    n_queries: int
    lds: Measured | None
    ground_truth: GroundTruthFigures | None
    costs: Mapping[str, Cost]
    scatters: Sequence[QueryScatter]
    tail_patch: Measured | None
    retrieval: Retrieval | None
    removals: Sequence[Removal]
    selections: Sequence[Selected]
    trials: Sequence[RecipeTrial]
    missing: Sequence[Missing]
    stale_results: Sequence[str]
    created: datetime
    provenance: Mapping[str, str]
    version: str
    agreement: Measured | None = None
    """NDCG@20 to exact EK-FAC."""
    removal_measures: RemovalMeasures | None = None

    @property
    def methods(self) -> Sequence[str]:
        """Every method that was evaluated, the best by LDS first, then those without one."""
        ranked = list(self.lds.methods) if self.lds else []
        return [*ranked, *sorted(set(self.costs) - set(ranked))]
