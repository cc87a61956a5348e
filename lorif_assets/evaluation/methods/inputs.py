"""What every method scores: the queries of a set and all training examples, as text and as tokens."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.sound_examples import NOT_FINITE
from lorif_assets.config.settings import Settings
from lorif_assets.data.passages import passage_text
from lorif_assets.data.rows.rejection_reasons import first_and_counts
from lorif_assets.errors import MismatchError, SourceError
from lorif_assets.evaluation.example_ids import require_unique_ids
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.project import Project

if TYPE_CHECKING:
    from lorif_assets.data.tokens.tokenization import TokenizedExample


@dataclass(frozen=True)
class Scorable:
    """Rows in a fixed order: their ids, tokens and readable text."""

    tokenized: "Sequence[TokenizedExample]"
    texts: Sequence[str]

    @property
    def ids(self) -> list[str]:
        """Ids of the rows."""
        return [example.example_id for example in self.tokenized]


@dataclass(frozen=True)
class MethodInputs:
    """A loaded checkpoint, the queries and the training examples; rows that its tokenizer cannot use are left out, and so are
    examples whose loss or gradient at the checkpoint is known not to be finite.

    `queries` are those of all `query_sets` together, one set after the other: a method that passes over the training
    data does so once for all of them.
    """

    settings: Settings
    lake: Lake
    models: Checkpoints
    attributed: AttributedModel
    query_sets: Mapping[str, Scorable]
    examples: Scorable
    _computed: dict[str, Mapping[str, "MethodScores"]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def load(cls, project: Project, attributed: AttributedModel, query_sets: Iterable[str]) -> "MethodInputs":
        """Read query sets and all training examples.

        Raises:
            MismatchError: a query set or the training examples are not in the lake, or two examples have one id.
            SourceError: no query of a set, or no example, can be used with the checkpoint's tokenizer.
        """
        settings, lake, models = project.settings, project.lake, project.checkpoints
        queries = {name: _scorable(lake, attributed, name) for name in query_sets}
        return cls(settings, lake, models, attributed, queries, _scorable(lake, attributed, None))

    @cached_property
    def queries(self) -> Scorable:
        """The queries of all sets, one set after the other; ids may repeat from set to set."""
        sets = self.query_sets.values()
        return Scorable(
            [query for queries in sets for query in queries.tokenized],
            [text for queries in sets for text in queries.texts],
        )

    def scores_of(
        self, method: Callable[["MethodInputs"], Mapping[str, "MethodScores"]], *, keep: bool = True
    ) -> Mapping[str, "MethodScores"]:
        """Return what a method's function computes from these inputs; once, where it is kept for methods that build on it."""
        name = f"{method.__module__}:{method.__qualname__}"
        if name in self._computed:
            return self._computed[name]
        scores = method(self)
        if keep:
            self._computed[name] = scores
        return scores


@dataclass(frozen=True)
class MethodScores:
    """Scores of every query and example, larger where the example speaks more for the query, and what they cost."""

    scores: Float32[np.ndarray, "Q N"]
    bytes_per_example: float
    """Bytes that are kept per training example, so that a new query need not see the data again."""
    setup_seconds: float | None
    """Spent on the training examples, once; None where other assets spent it."""
    query_seconds: float
    """Spent on the queries, all of them together."""
    shared_bytes: int = 0
    """Kept once for all examples, so that queries can be scored: bases, curvature, axes."""


def _scorable(lake: Lake, attributed: AttributedModel, query_set: str | None) -> Scorable:
    if query_set is None:
        rows, id_column, what = lake.read(TRAINING_EXAMPLES).sort("shard", "row"), "example_id", "training example"
        require_unique_ids(rows)
    else:
        rows, id_column = lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row"), "query_id"
        what = f"query of the set {query_set!r}"
    if rows.is_empty():
        raise MismatchError(f"there is no {what} in the lake; materialize it there first")
    tokenized = (attributed.tokenized if query_set is None else attributed.tokenized_queries)(rows.to_arrow())
    if not tokenized.examples:
        reasons = first_and_counts(tokenized.rejected["reason"].to_pylist())
        raise SourceError(f"no {what} can be used with this tokenizer; {reasons}")
    # Retraining is measured by losses: contrasts, weighted sets and scalars are left out.
    examples = [example for example in tokenized.examples if example.objective is None]
    if not examples:
        raise SourceError(
            f"every {what} asks about a contrast, a weighted set or a scalar, which are not held against retraining; take the "
            "set out of `evaluation`, or add queries that ask about a completion"
        )
    if query_set is None:
        unsound = _not_finite(lake, attributed)
        examples = [example for example in examples if example.example_id not in unsound]
    texts = {row[id_column]: passage_text(row) for row in rows.iter_rows(named=True)}
    return Scorable(examples, [texts[example.example_id] for example in examples])


def _not_finite(lake: Lake, attributed: AttributedModel) -> frozenset[str]:
    """Return the examples that were set aside as the factors of a checkpoint were computed; one would spoil every sum."""
    found = lake.read(REJECTED, ["part", "example_id", "reason"], stage="gradient_factors")
    of_checkpoint = f"{attributed.record.name}|"
    return frozenset(
        example_id
        for part, example_id, reason in found.iter_rows()
        if reason == NOT_FINITE and part.startswith(of_checkpoint)
    )
