"""Ten thousand partitions of gradient factors: what looks at them cost the sensors and `lorif status`, and runs the daemon.

The project of `dagster_project`, whose tables say that all factors are there. Factors of random numbers are written as
`copied_shards` says; queries and curvature are not there, so that a look always finds something to launch. Figures are medians
of CPU seconds in one process; a run is made once.
"""

import gc
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pyarrow as pa
import torch
from copied_shards import SHARD_HASH, copy_shard, shard_name, write_shards
from dagster_project import CHECKPOINT, factors_of, project_in_dagster
from measurements import interleaved, markdown_table, report, setting_and_output, timed
from rich.console import Console

from lorif_assets.assets.graph import ASSETS
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.automation.sensors import automation_definitions
from lorif_assets.automation.work import MOST_PARTITIONS, Work
from lorif_assets.cli.status import show_status
from lorif_assets.data.shards import survey
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.project import Project
from resources import dagster_resources

PER_COMMIT = 100


@dataclass(frozen=True)
class Setting:
    """Size of the project."""

    shards: int = 10_000
    checkpoints: int = 1
    repeats: int = 3


def fill_lake(project: Project, shards: int, rows: int = 1) -> None:
    """Write examples and factors of all shards, `rows` of each."""
    lake, settings = project.lake, project.settings
    lake.replace(TRAINING_EXAMPLES, {"shard": shard_name(0)}, example_rows(project, SHARD_HASH, rows))
    copy_shard(lake, TRAINING_EXAMPLES, {"shard": shard_name(0)}, shards, PER_COMMIT)
    record = checkpoint_record(lake, CHECKPOINT, settings.recipe)
    write_shards(lake, record, settings.recipe, shards, rows, PER_COMMIT)


def example_rows(project: Project, shard_hash: str, rows: int = 1) -> pa.Table:
    """Return the rows of the first shard."""
    settings = project.settings
    piece = survey(settings.sources, settings.base).shards[0]
    row = {
        "shard": piece.shard,
        "format": "text",
        "text": "example",
        "content_hash": "c",
        "shard_hash": shard_hash,
        "source_version": piece.version,
    }
    numbered = [{**row, "example_id": f"example {number}", "row": number} for number in range(rows)]
    return pa.Table.from_pylist(numbered, schema=TRAINING_EXAMPLES.columns)


def looks(instance: dg.DagsterInstance, project: Project) -> dict[str, Callable[[], object]]:
    """Return what is timed: the sensors, the command, and the subset of partitions that Dagster's pages are made from."""
    sensors = {sensor.name: sensor for sensor in automation_definitions(project.settings)[0]}
    cursors: dict[str, str | None] = {}

    def tick(name: str) -> Callable[[], object]:
        def look() -> object:
            with dg.build_sensor_context(
                instance=instance, resources=dagster_resources(project), cursor=cursors.get(name)
            ) as context:
                said = sensors[name](context)
                cursors[name] = context.cursor
                return said

        return look

    def page() -> object:
        from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

        (asset,) = [asset for asset in ASSETS if asset.name == "gradient_factors"]
        definition = asset.partitions
        value = get_and_update_asset_status_cache_value(instance, asset.key, definition)
        if value is None:
            raise LookupError("Dagster knows of no partition")
        return len(value.deserialize_materialized_partition_subsets(definition))

    return {
        "discovery sensor": tick("discovery"),
        "re-attribution sensor": tick("re_attribution_sensor"),
        "withdrawal sensor": tick("withdrawal_sensor"),
        "lorif status": lambda: show_status(Console(file=io.StringIO())),
        "Dagster's partition statuses": page,
    }


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Time every look with nothing changed and with one shard changed."""
    rows = []
    with project_in_dagster(setting.shards, setting.checkpoints) as (_, instance, project):
        fill_lake(project, setting.shards)
        # What writing the project left in memory is none of the sensors': without this, each collection would go through it.
        gc.freeze()
        seconds = timed(looks(instance, project)["discovery sensor"])
        rows.append(
            {
                "state": "new partitions to count",
                "look": "discovery sensor",
                "cpu_seconds": seconds.cpu,
                "wall_seconds": seconds.wall,
            }
        )
        for state in ("nothing changed", "one shard changed"):
            taken = interleaved(looks(instance, project), setting.repeats)
            rows += [
                {"state": state, "look": look, "cpu_seconds": seconds.cpu, "wall_seconds": seconds.wall}
                for look, seconds in taken.items()
            ]
            changed = example_rows(project, "another hash")
            project.lake.replace(TRAINING_EXAMPLES, {"shard": shard_name(0)}, changed)
        result = looks(instance, project)["re-attribution sensor"]()
        requests = (result.run_requests if isinstance(result, dg.SensorResult) else None) or []
        if f"{CHECKPOINT}|{shard_name(0)}" not in [request.partition_key for request in requests]:
            raise ValueError(f"the sensor missed the changed shard: {result}")
        most = min(setting.shards, MOST_PARTITIONS)
        seconds = timed(lambda: make_run(instance, most))
        rows.append(
            {
                "state": f"{most:,} partitions",
                "look": "Dagster's daemon makes a run",
                "cpu_seconds": seconds.cpu,
                "wall_seconds": seconds.wall,
            }
        )
    return rows


def make_run(instance: dg.DagsterInstance, partitions: int) -> dg.DagsterRun:
    """Return a run of the first shards' factors, as Dagster's daemon stores it before it is launched."""
    from lorif_assets.definitions import defs

    keys = [factors_of(shard_name(number)) for number in range(partitions)]
    work = Work("gradient_factors", "gradient_factors", tuple(keys), "version")
    return instance.create_run_for_job(defs.resolve_job_def("materialize_gradient_factors"), tags=work.tags)


COLUMNS = {"": "{look}", "with": "{state}", "CPU s": "{cpu_seconds:.2f}"}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "dagster_scale")
    torch.set_num_threads(1)
    output = output.absolute()
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
