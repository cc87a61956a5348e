"""A project with many shards of one example each, and an instance of Dagster that knows of the factors of all checkpoints."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
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

CHECKPOINT = "checkpoint-1000"
"""The newest, which alone is active."""
SETTINGS = """
[[sources]]
name = "source"
path = "data.jsonl"
rows_per_shard = {rows}

[checkpoints]
path = "checkpoints"

[active]
checkpoints = "newest"

[recipe]
curvature = "svd"
rank = 1
factor_dtype = "bf16"

[automation]
enabled = true
"""


@contextmanager
def project_in_dagster(shards: int, checkpoints: int = 1) -> Iterator[tuple[Path, dg.DagsterInstance, Project]]:
    """Make a project and its instance, both in one folder, which becomes the working directory: the folder is removed again.

    The instance, on SQLite in `dagster`, knows of all checkpoints, and of all shards' factors for each; the lake holds the
    newest checkpoint's row alone.
    """
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        root = Path(folder)
        write_project(root, shards, checkpoints)
        project = Project.open(root / CONFIG_NAME)
        with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
            register(instance, discover(project))
            first = [asset for asset in ASSETS if asset.name == "checkpoints"]
            list(bring_up_to_date(instance, ASSETS, project, selection=first))
            tell_dagster(instance, shards, checkpoint_names(checkpoints))
            yield root, instance, project


def checkpoint_names(checkpoints: int) -> list[str]:
    """Return the names of so many checkpoints, the newest last."""
    return [*(f"checkpoint-{number}" for number in range(1, checkpoints)), CHECKPOINT]


def write_project(root: Path, shards: int, checkpoints: int = 1, rows: int = 1) -> None:
    """Write the settings, the data, `rows` examples to a shard, checkpoints of a very small model, and Dagster's home."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    (root / CONFIG_NAME).write_text(SETTINGS.format(rows=rows))
    (root / "dagster").mkdir()
    (root / "dagster/dagster.yaml").write_text("telemetry:\n  enabled: false\nnux:\n  enabled: false\n")
    (root / "data.jsonl").write_text("".join(f'{{"text": "example {row}"}}\n' for row in range(shards * rows)))
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
    for name in checkpoint_names(checkpoints)[:-1]:
        shutil.copytree(root / "checkpoints" / CHECKPOINT, root / "checkpoints" / name)


def tell_dagster(instance: dg.DagsterInstance, shards: int, checkpoints: Sequence[str]) -> None:
    """Tell Dagster that all shards' factors were materialized, for each checkpoint.

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
        for checkpoint in checkpoints:
            # The newest one's first and last are told.
            told = {shard_name(0), shard_name(shards - 1)} if checkpoint == CHECKPOINT else set()
            copies = [
                {
                    **values,
                    "event": first.event.replace(shard_name(0), shard).replace(CHECKPOINT, checkpoint),
                    "partition": factors_of(shard, checkpoint),
                }
                for shard in map(shard_name, range(shards))
                if shard not in told
            ]
            connection.execute(Events.insert(), copies)
    report_factors(instance, shard_name(shards - 1))


def report_factors(instance: dg.DagsterInstance, shard: str) -> None:
    """Tell Dagster that a shard's factors were materialized."""
    instance.report_runless_asset_event(dg.AssetMaterialization("gradient_factors", partition=factors_of(shard)))


def factors_of(shard: str, checkpoint: str = CHECKPOINT) -> dg.MultiPartitionKey:
    """Return the partition key of a shard's factors."""
    return dg.MultiPartitionKey({"checkpoint": checkpoint, "shard": shard})
