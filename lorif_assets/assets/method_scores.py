"""Method scores: LoRIF and what it is compared with, on the same queries and examples."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.checkpoint import StoredCheckpoint
from lorif_assets.config.settings import Settings
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices


@dg.asset(
    group_name="evaluation",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[query_scores],
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(EVALUATED_SCORES),
)
def method_scores(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
) -> Iterator[dg.MaterializeResult[Any]]:
    """The score of every pair of query and example by every method of the settings; those that are there are left."""
    from lorif_assets.evaluation.methods.evaluated_scores import method_versions, score_methods, scores_version
    from lorif_assets.evaluation.methods.inputs import MethodInputs

    commits = PartitionCommits(context)
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        stored = StoredCheckpoint.read(lake, name, settings.recipe)
        versions = {
            query_set: method_versions(settings, lake, model_checkpoints, stored.record, query_set)
            for query_set in query_sets
        }
        missing = {query_set: _missing(lake, name, query_set, versions[query_set]) for query_set in query_sets}
        figures: dict[str, Any] = {"left_as_they_are": _left(versions, missing)}
        if any(missing.values()):
            with devices.lease() as group:
                attributed = stored.load(model_checkpoints, group).model
                incomplete = [name for name in query_sets if missing[name]]
                inputs = MethodInputs.load(settings, lake, model_checkpoints, attributed, incomplete)
                figures |= {"queries": len(inputs.queries.ids), "examples": len(inputs.examples.ids)}
                for method, scores in score_methods(inputs, missing):
                    context.log.info(f"{name}: {method} scored in {scores.query_seconds:.1f} s")
                    figures[f"{method}_query_seconds"] = round(scores.query_seconds, 3)
                    figures[f"{method}_bytes_per_example"] = round(scores.bytes_per_example, 1)
                # Before the devices are another's: the memory is not free while a name holds the model.
                del attributed, inputs
        for query_set, key in query_sets.items():
            yield from commits.commit(key, scores_version(versions[query_set]), figures)


def _missing(lake: Lake, checkpoint: str, query_set: str, versions: Mapping[str, str]) -> Mapping[str, str]:
    from lorif_assets.evaluation.methods.evaluated_scores import stored_method_versions

    stored = stored_method_versions(lake, checkpoint, query_set)
    return {method: version for method, version in versions.items() if stored.get(method) != version}


def _left(versions: Mapping[str, Mapping[str, str]], missing: Mapping[str, Mapping[str, str]]) -> int:
    return sum(len(methods) for methods in versions.values()) - sum(len(methods) for methods in missing.values())
