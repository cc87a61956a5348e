"""A project with one checkpoint and many shards of one example each, and an instance of Dagster that knows of its factors."""

import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import dagster as dg
from copied_shards import shard_name
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.registration import register
from lorif_assets.config.settings import CONFIG_NAME
from lorif_assets.freshness.discovery import discover
from lorif_assets.project import Project

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


@contextmanager
def project_in_dagster(shards: int) -> Iterator[tuple[Path, dg.DagsterInstance, Project]]:
    """Make a project and its instance, both in one folder, which becomes the working directory: the folder is removed again.

    The instance, on SQLite in `dagster`, knows of the checkpoint and of all shards' factors; the lake holds the checkpoint's
    row alone.
    """
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        root = Path(folder)
        write_project(root, shards)
        project = Project.open(root / CONFIG_NAME)
        with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
            register(instance, discover(project))
            checkpoints = [asset for asset in ASSETS if asset.name == "checkpoints"]
            list(bring_up_to_date(instance, ASSETS, project, selection=checkpoints))
            tell_dagster(instance, shards)
            yield root, instance, project


def write_project(root: Path, shards: int) -> None:
    """Write the settings, the data, a checkpoint of a very small model, and Dagster's home."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    (root / CONFIG_NAME).write_text(SETTINGS)
    (root / "dagster").mkdir()
    (root / "dagster/dagster.yaml").write_text("telemetry:\n  enabled: false\nnux:\n  enabled: false\n")
    (root / "data.jsonl").write_text("".join(f'{{"text": "example {row}"}}\n' for row in range(shards)))
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


def tell_dagster(instance: dg.DagsterInstance, shards: int) -> None:
    """Tell Dagster that all shards' factors were materialized.

    The first and the last shard by its own function; the others' events are copies of the first one's row, since Dagster
    takes 12 ms for each.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"expected Dagster's events in a SQL database, found {type(storage).__name__}")
    report_factors(instance, shard_name(0))
    with storage.index_connection() as connection:
        first = connection.execute(Events.select().where(Events.c.partition == factors_of(shard_name(0)))).one()
        values = {name: value for name, value in first._mapping.items() if name != "id"}
        copies = [
            {**values, "event": first.event.replace(shard_name(0), shard), "partition": factors_of(shard)}
            for shard in map(shard_name, range(1, shards - 1))
        ]
        connection.execute(Events.insert(), copies)
    report_factors(instance, shard_name(shards - 1))


def report_factors(instance: dg.DagsterInstance, shard: str) -> None:
    """Tell Dagster that a shard's factors were materialized."""
    instance.report_runless_asset_event(dg.AssetMaterialization("gradient_factors", partition=factors_of(shard)))


def factors_of(shard: str) -> dg.MultiPartitionKey:
    """Return the partition key of a shard's factors."""
    return dg.MultiPartitionKey({"checkpoint": CHECKPOINT, "shard": shard})
