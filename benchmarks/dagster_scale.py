"""Ten thousand partitions of gradient factors: what a look at them costs the sensors, `lorif status` and Dagster's own page.

A project with one checkpoint and `shards` shards of one example each, whose tables say that all factors are there, and an
instance of Dagster on SQLite that was told of every one of them. Factors of random numbers are written as `copied_shards` says;
queries and curvature are not there, so that a look always finds something to launch. Figures are medians of CPU seconds in one
process.
"""

import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import torch
from copied_shards import SHARD_HASH, copy_shard, shard_name, write_shards
from measurements import interleaved, markdown_table, report, setting_and_output
from rich.console import Console

from lorif_assets.assets.graph import ASSETS
from lorif_assets.attributed_model import checkpoint_record
from lorif_assets.automation import automation_definitions
from lorif_assets.discovery import discover, register
from lorif_assets.materialization import bring_up_to_date
from lorif_assets.project_resources import ProjectResources, project_resources
from lorif_assets.settings import load_settings
from lorif_assets.status import show_status
from resources.schemas import TRAINING_EXAMPLES
from resources.source_files import list_all_shards

CHECKPOINT = "checkpoint-1"
SETTINGS = """
[[sources]]
name = "source"
path = "data.jsonl"
rows_per_shard = 1

[checkpoints]
path = "checkpoints"

[recipe]
curvature = "svd"
rank = 1
factor_dtype = "bf16"

[automation]
enabled = true
"""
PER_COMMIT = 100


@dataclass(frozen=True)
class Setting:
    """Size of the project."""

    shards: int = 10_000
    repeats: int = 3


def write_project(root: Path, setting: Setting) -> None:
    """Write the settings, the data and a checkpoint of a very small model."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    (root / "lorif.toml").write_text(SETTINGS)
    (root / "data.jsonl").write_text("".join(f'{{"text": "example {row}"}}\n' for row in range(setting.shards)))
    (root / "queries").mkdir()
    (root / "queries/asked.jsonl").write_text('{"text": "example"}\n')
    words = {"<unk>": 0, "example": 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<unk>").save_pretrained(
        root / "checkpoints" / CHECKPOINT
    )
    config = GPT2Config(vocab_size=2, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(root / "checkpoints" / CHECKPOINT)


def fill_tables(instance: dg.DagsterInstance, resources: ProjectResources, setting: Setting) -> None:
    """Write examples and factors of all shards, and tell Dagster of them."""
    lake, settings = resources["lake"], resources["settings"]
    checkpoints = [asset for asset in ASSETS if asset.key.to_user_string() == "checkpoints"]
    list(bring_up_to_date(instance, ASSETS, resources, selection=checkpoints))
    lake.replace(TRAINING_EXAMPLES, {"shard": shard_name(0)}, example_rows(resources, SHARD_HASH))
    copy_shard(lake, TRAINING_EXAMPLES, {"shard": shard_name(0)}, setting.shards, PER_COMMIT)
    record = checkpoint_record(lake, CHECKPOINT, settings.recipe)
    write_shards(lake, record, settings.recipe, setting.shards, 1, PER_COMMIT)
    for number in range(setting.shards):
        key = dg.MultiPartitionKey({"checkpoint": CHECKPOINT, "shard": shard_name(number)})
        instance.report_runless_asset_event(dg.AssetMaterialization("gradient_factors", partition=key))


def example_rows(resources: ProjectResources, shard_hash: str) -> pa.Table:
    """Return the one row of the first shard."""
    settings = resources["settings"]
    piece = list_all_shards(settings.sources, settings.base)[0]
    row = {
        "shard": piece.shard,
        "example_id": "example",
        "row": 0,
        "format": "text",
        "text": "example",
        "content_hash": "c",
        "shard_hash": shard_hash,
        "source_version": piece.version,
    }
    return pa.Table.from_pylist([row], schema=TRAINING_EXAMPLES.columns)


def looks(instance: dg.DagsterInstance, resources: ProjectResources) -> dict[str, Callable[[], object]]:
    """Return what is timed: the sensors, the command, and the subset of partitions that Dagster's page is made from."""
    sensors = {sensor.name: sensor for sensor in automation_definitions(resources["settings"])[0]}

    def tick(name: str) -> Callable[[], object]:
        return lambda: sensors[name](dg.build_sensor_context(instance=instance, resources={**resources}))

    def page() -> object:
        from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

        (asset,) = [asset for asset in ASSETS if asset.key.to_user_string() == "gradient_factors"]
        definition = asset.partitions_def
        value = get_and_update_asset_status_cache_value(instance, asset.key, definition)
        if value is None or definition is None:
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
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_project(root, setting)
        os.chdir(root)
        resources = project_resources(load_settings(root / "lorif.toml"))
        (root / "dagster").mkdir()
        with dg.DagsterInstance.local_temp(str(root / "dagster")) as instance:
            register(instance, discover(resources["settings"], resources["model_checkpoints"], resources["lake"]))
            fill_tables(instance, resources, setting)
            for state in ("nothing changed", "one shard changed"):
                taken = interleaved(looks(instance, resources), setting.repeats)
                rows += [
                    {"state": state, "look": look, "cpu_seconds": seconds.cpu, "wall_seconds": seconds.wall}
                    for look, seconds in taken.items()
                ]
                changed = example_rows(resources, "another hash")
                resources["lake"].replace(TRAINING_EXAMPLES, {"shard": shard_name(0)}, changed)
            result = looks(instance, resources)["re-attribution sensor"]()
            requests = (result.run_requests if isinstance(result, dg.SensorResult) else None) or []
            if f"{CHECKPOINT}|{shard_name(0)}" not in [request.partition_key for request in requests]:
                raise ValueError(f"the sensor missed the changed shard: {result}")
    return rows


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
