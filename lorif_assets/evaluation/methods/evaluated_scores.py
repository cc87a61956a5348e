"""The table of evaluated scores: running the methods, storing what they say, and reading it back as matrices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import polars as pl
from jaxtyping import Float32

from lorif_assets.attribution.checkpoints.checkpoint import (
    StoredCheckpoint,
    averaged_checkpoints,
    current_score_versions,
)
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.versions import ledger_version
from lorif_assets.compute.shard_work import Step, Worker, Workers
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.methods import METHODS, MethodName, Need
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.data.stored_examples import stored_query_set, stored_shard_hashes
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.influcoder.encoder_places import encoder_content
from lorif_assets.influcoder.stored import encoder_weights
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES, METHOD_COSTS
from lorif_assets.lake.lake import Lake
from lorif_assets.project import Project

_CODE_VERSION = "1"
_BUILT_ON = frozenset(METHODS[method].function for method in (MethodName.LORIF, MethodName.RELATIF, MethodName.BM25))
"""The functions whose scores other methods' functions ask for."""
_OF_SELF_INFLUENCE = frozenset({MethodName.RELATIF, MethodName.HYBRID})


@dataclass(frozen=True)
class EvaluatedScores:
    """Scores of several methods on the same queries and examples; `version` is that of all of them."""

    query_ids: Sequence[str]
    example_ids: Sequence[str]
    by_method: Mapping[str, Float32[np.ndarray, "Q N"]]
    version: str


def method_versions(project: Project, record: CheckpointRecord, query_set: str) -> Mapping[str, str]:
    """Return by method the hash of what its scores depend on.

    Raises:
        MismatchError: the query set is not in the lake.
    """
    settings, lake = project.settings, project.lake
    hashes = stored_shard_hashes(lake)
    queries = str(stored_query_set(lake, query_set)["query_set_hash"][0])
    stored = StoredCheckpoint(lake, settings.recipe, record)
    averaged = averaged_checkpoints(settings, project.checkpoints.complete(), stored)
    lorif = current_score_versions(settings, project.checkpoints, averaged, hashes, {query_set: queries})[query_set]
    baseline = [
        _CODE_VERSION,
        settings.recipe.factor_hash,
        settings.evaluation.seed,
        record.weights_hash,
        record.tokenizer_hash,
        ledger_version(hashes),
        queries,
    ]
    encoder = encoder_weights(lake, [record]).get(record.name, "")
    of_encoder = [encoder, ledger_version(hashes), queries]
    sources: Mapping[Need, Sequence[object]] = {
        Need.NOTHING: baseline,
        Need.ATTRIBUTION: [lorif],
        Need.EXACT_SCORES: [lorif, settings.exact_scores.version(lorif)],
        Need.ENCODER: of_encoder,
        Need.TEXT_ENCODER: [*baseline, *_text_encoder(settings)],
    }
    # These two are the sources of other methods' versions, and their own version has no name in it.
    own = {MethodName.LORIF: lorif, MethodName.INFLUCODER: content_hash(of_encoder)}
    return {
        str(method): own.get(
            method, content_hash([method, *_edition(method, settings.recipe), *sources[method.definition.needs]])
        )
        for method in settings.evaluation.methods
        if method.definition.needs is not Need.ENCODER or settings.influcoder.enabled
    }


def _text_encoder(settings: Settings) -> Sequence[str | int | None]:
    """Return what embeddings depend on: the encoder, its content where that can be told, and the tokens that it reads."""
    named = settings.evaluation.text_encoder
    content = encoder_content(settings, named) if named else None
    return [named, settings.influcoder.encoder_length, *filter(None, [content])]


def _edition(method: MethodName, recipe: Recipe) -> Sequence[int]:
    number = method.definition.version
    if method in _OF_SELF_INFLUENCE and recipe.whitening_rank is not None:
        # Self-influence was once wrong for gradients that are whitened by some eigenvectors alone.
        number += 1
    # Versions of before there was a number stay what they were.
    return [number] if number > 1 else []


def scores_version(versions: Mapping[str, str]) -> str:
    """Return the version of the scores of all methods together."""
    return content_hash([list(versions.values())])


def stored_method_versions(lake: Lake, checkpoint: str, query_set: str) -> Mapping[str, str]:
    """Return by method the version of its stored scores."""
    rows = lake.read(METHOD_COSTS, ["method", "computed_from"], checkpoint=checkpoint, query_set=query_set)
    return dict(rows.iter_rows())


@dataclass(frozen=True)
class MethodsOpening:
    """Loads a checkpoint and what methods score on a worker; picklable."""

    project: Project
    stored: StoredCheckpoint
    query_sets: Sequence[str]

    def __call__(self, worker: Worker) -> MethodInputs:
        """Return the inputs of methods.

        Raises:
            MismatchError: the checkpoint's files changed, or a query set or the training examples are not in the lake.
            SourceError: no query of a set, or no example, can be used with the checkpoint's tokenizer.
        """
        attributed = self.stored.load(self.project.checkpoints, worker.devices).model
        return MethodInputs.load(self.project, attributed, self.query_sets)


@dataclass(frozen=True)
class ScoredIds:
    """The ids of queries, by set, and of examples, in the order of the methods' matrices."""

    queries: Mapping[str, Sequence[str]]
    examples: Sequence[str]

    @classmethod
    def of(cls, inputs: MethodInputs) -> "ScoredIds":
        """Return those of the inputs."""
        return cls({name: queries.ids for name, queries in inputs.query_sets.items()}, inputs.examples.ids)

    @property
    def n_queries(self) -> int:
        """Queries of all sets."""
        return sum(map(len, self.queries.values()))


def score_methods(
    lake: Lake,
    checkpoint: str,
    workers: Workers[MethodInputs],
    ids: ScoredIds,
    versions: Mapping[str, Mapping[str, str]],
) -> Iterator[tuple[str, MethodScores]]:
    """Run methods for all query sets of the inputs at once, and store each one's scores as soon as they are computed.

    Args:
        lake: where they are stored.
        checkpoint: its name.
        workers: with the inputs of the methods.
        ids: of the inputs.
        versions: by query set and method, the version of the scores to compute.

    Yields:
        Each method and what it computed.
    """
    names = dict.fromkeys(method for methods in versions.values() for method in methods)

    def store(computed: Mapping[str, MethodScores]) -> dict[str, MethodScores]:
        wanted = {method: scores for method, scores in computed.items() if method in names}
        for method, scores in wanted.items():
            _store(lake, checkpoint, ids, method, scores, versions)
        return wanted

    functions = list(dict.fromkeys(METHODS[method].function for method in names))
    for _, stored in workers.map_shards(Step(_scores_of), functions, store):
        yield from stored.result().items()


def _scores_of(inputs: MethodInputs, function: str) -> Mapping[str, MethodScores]:
    # A matrix of all pairs: of those that nothing builds on, one is in memory at a time.
    return inputs.scores_of(scoring_function(function), keep=function in _BUILT_ON)


def scoring_function(name: str) -> Callable[[MethodInputs], Mapping[str, MethodScores]]:
    """Return the function of a method, `module:name` in this package; it returns scores by method."""
    module, _, function = name.partition(":")
    found: Callable[[MethodInputs], Mapping[str, MethodScores]] = getattr(
        import_module(f"{__package__}.{module}"), function
    )
    return found


def read_evaluated_scores(lake: Lake, checkpoint: str, query_set: str, versions: Mapping[str, str]) -> EvaluatedScores:
    """Return the stored scores of all methods as matrices over the queries and examples that any of them scored.

    Raises:
        MismatchError: a method's scores are missing or out of date.
    """
    stored = stored_method_versions(lake, checkpoint, query_set)
    for method, version in versions.items():
        if stored.get(method) != version:
            raise MismatchError(
                f"the scores of {method} at {checkpoint!r} for the query set {query_set!r} are "
                f"{'out of date' if method in stored else 'missing'}; materialize `method_scores` first"
            )
    # One method's pairs at a time: with their ids they take ten times what their matrix does.
    by_method = {method: _read_pairs(lake, checkpoint, query_set, method) for method in versions}
    query_ids = sorted(set[str]().union(*(pairs.query_ids for pairs in by_method.values())))
    example_ids = sorted(set[str]().union(*(pairs.example_ids for pairs in by_method.values())))
    matrices = {method: pairs.over(query_ids, example_ids) for method, pairs in by_method.items()}
    return EvaluatedScores(query_ids, example_ids, matrices, scores_version(versions))


@dataclass(frozen=True)
class _Pairs:
    """One method's scores of its queries and examples, both in the order of their ids."""

    query_ids: Sequence[str]
    example_ids: Sequence[str]
    scores: Float32[np.ndarray, "q n"]

    def over(self, query_ids: Sequence[str], example_ids: Sequence[str]) -> Float32[np.ndarray, "Q N"]:
        """Return the scores of more queries and examples, in the order of their ids; 0 where there is none."""
        if (self.query_ids, self.example_ids) == (query_ids, example_ids):
            return self.scores
        scores = np.zeros((len(query_ids), len(example_ids)), dtype=np.float32)
        scores[np.ix_(np.searchsorted(query_ids, self.query_ids), np.searchsorted(example_ids, self.example_ids))] = (
            self.scores
        )
        return scores


def _read_pairs(lake: Lake, checkpoint: str, query_set: str, method: str) -> _Pairs:
    columns = ["query_id", "example_id", "score"]
    rows = lake.read(EVALUATED_SCORES, columns, checkpoint=checkpoint, query_set=query_set, method=method)
    query_ids, example_ids = (rows[column].unique().sort() for column in columns[:2])
    places = [rows[ids.name].cast(pl.Enum(ids)).to_physical().to_numpy() for ids in (query_ids, example_ids)]
    scores = np.zeros((len(query_ids), len(example_ids)), dtype=np.float32)
    scores[places[0], places[1]] = rows["score"].to_numpy()
    return _Pairs(query_ids.to_list(), example_ids.to_list(), scores)


def _store(
    lake: Lake,
    checkpoint: str,
    ids: ScoredIds,
    method: str,
    scores: MethodScores,
    versions: Mapping[str, Mapping[str, str]],
) -> None:
    first, n_examples = 0, len(ids.examples)
    for query_set, queries in ids.queries.items():
        rows = scores.scores[first : first + len(queries)]
        first += len(queries)
        if method not in versions[query_set]:
            continue
        partition = {"checkpoint": checkpoint, "query_set": query_set, "method": method}
        constants = {**partition, "computed_from": versions[query_set][method]}
        literals = {name: pl.lit(value) for name, value in constants.items()}
        names = pl.Series(queries, dtype=pl.String), pl.Series(ids.examples, dtype=pl.String)
        pairs = pl.DataFrame(
            {
                "query_id": names[0].gather(np.repeat(np.arange(len(queries)), n_examples)),
                "example_id": names[1].gather(np.tile(np.arange(n_examples), len(queries))),
                "score": rows.ravel(),
            }
        )
        costs = pl.DataFrame(
            {
                "bytes_per_example": [float(scores.bytes_per_example)],
                "setup_seconds": [scores.setup_seconds],
                "query_seconds": [scores.query_seconds * len(queries) / ids.n_queries],
                "n_examples": [n_examples],
                "n_queries": [len(queries)],
                "shared_bytes": [float(scores.shared_bytes)],
            },
            schema_overrides={"setup_seconds": pl.Float64},
        )
        lake.replace(EVALUATED_SCORES, partition, pairs.with_columns(**literals).to_arrow())
        # The costs come last: to readers they are the sign that the scores are stored.
        lake.replace(METHOD_COSTS, partition, costs.with_columns(**literals).to_arrow())
