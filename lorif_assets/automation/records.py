"""Whether the tables, Dagster and MLflow tell the same of what was computed: a kill between two commits sets them apart."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.automation.dead_runs import dead_runs
from lorif_assets.automation.untold import is_recorded
from lorif_assets.config.content_hash import content_hash
from lorif_assets.data.shards import in_short
from lorif_assets.freshness.stored_versions import stored_versions
from lorif_assets.project import Project
from lorif_assets.tracking import StoredRun
from lorif_assets.tracking.tracked_run import first_line, mlflow_errors

# A comparison without two checkpoints has no rows.
_OF_NOTHING = content_hash([])


def disagreements(instance: dg.DagsterInstance, assets: Sequence[AttributionAsset], project: Project) -> Iterator[str]:
    """Yield in a sentence each what Dagster or MLflow tells otherwise than the tables, with what mends it.

    Nothing is written. What a run in flight has just committed may be among it.

    Args:
        instance: Dagster's instance.
        assets: those whose partitions are compared.
        project: whose tables and tracked runs they are.

    Raises:
        TableError: a table cannot be read.
    """
    for asset in assets:
        yield from _of_dagster(instance, asset, stored_versions(project.lake, asset.table))
    try:
        tracked = project.tracking.runs()
    except mlflow_errors() as error:
        yield f"MLflow cannot be asked ({first_line(error)}): its runs are not compared; bring the server or its database back"
    else:
        yield from _of_mlflow(instance, tracked)


def _of_dagster(instance: dg.DagsterInstance, asset: AttributionAsset, stored: Mapping[str, str]) -> Iterator[str]:
    newest = instance.event_log_storage.get_latest_tags_by_partition(
        asset.key, dg.DagsterEventType.ASSET_MATERIALIZATION, [DATA_VERSION_TAG]
    )
    recorded = {key: tags[DATA_VERSION_TAG] for key, tags in newest.items() if DATA_VERSION_TAG in tags}
    # What was withdrawn is no partition any more, and stays in Dagster's history.
    partitions = set(asset.partitions.get_partition_keys(dynamic_partitions_store=instance))
    unknown = sorted(stored.keys() - recorded.keys())
    other = sorted(key for key in stored.keys() & recorded.keys() if stored[key] != recorded[key])
    lost = sorted(key for key in recorded.keys() & partitions - stored.keys() if recorded[key] != _OF_NOTHING)
    if unknown:
        yield f"{asset.name}: Dagster has no record of {_names(unknown)}, stored in the lake; {_again(asset)}"
    if other:
        yield f"{asset.name}: Dagster records another version than is stored of {_names(other)}; {_again(asset)}"
    if lost:
        yield f"{asset.name}: the lake holds nothing of {_names(lost)}, which Dagster records; {_again(asset)}"


def _of_mlflow(instance: dg.DagsterInstance, tracked: Sequence[StoredRun]) -> Iterator[str]:
    dead = {run.run_id for run in dead_runs(instance)}
    open_runs: dict[str, list[str]] = defaultdict(list)
    empty: dict[str, list[str]] = defaultdict(list)
    for one in tracked:
        run = instance.get_run_by_id(one.dagster_run)
        is_over = run is None or run.is_finished or run.run_id in dead
        if not one.is_finished and is_over:
            open_runs[one.asset].append(one.run_id)
        elif one.succeeded and run and is_over and not run.is_success and not is_recorded(instance, one):
            empty[one.asset].append(one.run_id)
    for asset, names in open_runs.items():
        yield (
            f"{asset}: MLflow still shows as running {_names(names)}, whose Dagster run is over; the next update ends it "
            "if it was killed, else end it there as KILLED"
        )
    for asset, names in empty.items():
        yield (
            f"{asset}: MLflow has as finished {_names(names)}, whose Dagster run failed and recorded nothing; the next update "
            "has it as killed if it was, else delete it there"
        )


def _names(names: Sequence[str]) -> str:
    return f"{len(names)} partition(s) or run(s), for instance {in_short(names)}" if len(names) > 1 else names[0]


def _again(asset: AttributionAsset) -> str:
    return f"materialize `{asset.name}` for it in Dagster's UI"
