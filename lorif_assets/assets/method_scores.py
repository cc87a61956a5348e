"""Method scores: LoRIF and what it is compared with, on the same queries and examples."""

from collections.abc import Mapping
from typing import Any

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.compute.shard_work import result
from lorif_assets.evaluation.methods.evaluated_scores import (
    MethodsOpening,
    ScoredIds,
    method_versions,
    score_methods,
    scores_version,
    stored_method_versions,
)
from lorif_assets.evaluation.methods.libraries import require_libraries
from lorif_assets.freshness.evaluation import stale_method_scores
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES
from lorif_assets.lake.lake import Lake

Versions = Mapping[str, Mapping[str, str]]
"""By query set and method."""


@attribution_asset(
    group="evaluation",
    table=EVALUATED_SCORES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[query_scores],
    find_stale=stale_method_scores,
    on_demand=True,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def method_scores(run: PartitionRun) -> Materializations:
    """The score of every pair of query and example by every method of the settings; stored scores are not recomputed."""
    require_libraries(run.settings.evaluation)
    for name, query_sets in run.by_checkpoint().items():
        stored = run.stored(name)
        versions = {query_set: method_versions(run.project, stored.record, query_set) for query_set in query_sets}
        missing = {query_set: _missing(run.lake, name, query_set, versions[query_set]) for query_set in query_sets}
        figures: dict[str, Any] = {"left_as_they_are": _count(versions) - _count(missing)}
        if any(missing.values()):
            figures |= _scored(run, stored, missing)
        for query_set, key in query_sets.items():
            yield from run.commit(key, scores_version(versions[query_set]), figures)


def _scored(run: PartitionRun, stored: StoredCheckpoint, missing: Versions) -> dict[str, Any]:
    """Compute and store what is missing, and return what it cost."""
    checkpoint = stored.record.name
    incomplete = [query_set for query_set, methods in missing.items() if methods]
    with run.workers(MethodsOpening(run.project, stored, incomplete)) as workers:
        ids: ScoredIds = result(workers, ScoredIds.of)
        figures: dict[str, Any] = {"queries": ids.n_queries, "examples": len(ids.examples)}
        for method, scores in score_methods(run.lake, checkpoint, workers, ids, missing):
            run.log.info(f"{checkpoint}: {method} scored in {scores.query_seconds:.1f} s")
            figures[f"{method}_query_seconds"] = round(scores.query_seconds, 3)
            figures[f"{method}_bytes_per_example"] = round(scores.bytes_per_example, 1)
    return figures


def _missing(lake: Lake, checkpoint: str, query_set: str, versions: Mapping[str, str]) -> Mapping[str, str]:
    stored = stored_method_versions(lake, checkpoint, query_set)
    return {method: version for method, version in versions.items() if stored.get(method) != version}


def _count(versions: Versions) -> int:
    return sum(len(methods) for methods in versions.values())
