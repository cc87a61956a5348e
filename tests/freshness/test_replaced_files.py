"""A file that takes the place of another one of the same size and time is seen, or found by `--rehash`."""

import os
from pathlib import Path

import polars as pl
import pytest

from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.config.sources import Source
from lorif_assets.data.shards import list_shards
from lorif_assets.lake.attribution_tables import CHECKPOINTS as CHECKPOINT_ROWS
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.table_schema import TableSchema
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

PLACES = {
    "training_examples": (f"data/{SHARDS[1].split('-')[1]}.jsonl", SHARDS[1]),
    "query_examples": (f"queries/{QUERY_SET}.jsonl", QUERY_SET),
    "checkpoints": (f"checkpoints/{CHECKPOINTS[1]}/model.safetensors", CHECKPOINTS[1]),
}
TABLES: dict[str, tuple[TableSchema, str, str]] = {
    "training_examples": (TRAINING_EXAMPLES, "shard", "source_version"),
    "query_examples": (QUERY_EXAMPLES, "query_set", "source_version"),
    "checkpoints": (CHECKPOINT_ROWS, "checkpoint", "files_version"),
}


def replace(file: Path) -> None:
    """Change a letter or a number in the middle, and leave size and time as they were."""
    state, content = file.stat(), bytearray(file.read_bytes())
    at = len(content) // 2
    if file.suffix == ".jsonl":
        at = content.index(b"file", at)
    content[at] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def forget_samples(project: TinyProject, asset: str) -> None:
    """Store the versions as a version of the project did that took no samples."""
    schema, key, column = TABLES[asset]
    rows = project.table(schema).with_columns(pl.col(column).str.replace_all(r"~[0-9a-f]{16}", ""))
    for (name,), part in rows.group_by(key):
        project.lake.replace(schema, {key: str(name)}, part.to_arrow())


@pytest.mark.parametrize("asset", PLACES)
def test_it_is_seen_at_the_next_look(private_project: TinyProject, asset: str) -> None:
    file, partition = PLACES[asset]
    replace(private_project.root / file)
    assert set(private_project.stale(asset)) == {partition}
    updated = private_project.update()
    assert updated[asset] == {partition}
    assert "attribution_report" in updated
    assert private_project.update() == {}


@pytest.mark.parametrize("asset", PLACES)
def test_what_was_stored_before_there_were_samples_is_up_to_date_and_rehash_finds_what_was_replaced(
    private_project: TinyProject, asset: str
) -> None:
    forget_samples(private_project, asset)
    assert private_project.update() == {}
    file, partition = PLACES[asset]
    replace(private_project.root / file)
    assert private_project.update() == {}
    updates = list(bring_up_to_date(private_project.instance, ASSETS, private_project.opened, rehash=True))
    computed = {update.asset: set(update.partitions) for update in updates if update.partitions}
    assert computed["training_examples"] == set(SHARDS)
    assert computed["query_examples"] == {QUERY_SET}
    assert computed["checkpoints"] == set(CHECKPOINTS)
    factors = computed.get("gradient_factors", set())
    assert (
        factors
        == {
            "training_examples": {f"{checkpoint}|{partition}" for checkpoint in CHECKPOINTS},
            "query_examples": set(),
            "checkpoints": {f"{partition}|{shard}" for shard in SHARDS},
        }[asset]
    )
    assert private_project.update() == {}


def test_rehash_computes_nothing_again_where_the_bytes_are_the_same(private_project: TinyProject) -> None:
    updates = list(bring_up_to_date(private_project.instance, ASSETS, private_project.opened, rehash=True))
    computed = {update.asset for update in updates if update.partitions}
    assert computed == {"training_examples", "query_examples", "checkpoints"}


@pytest.mark.parametrize(("name", "passages"), [("a.txt", "file"), ("a.txt", "paragraph"), ("a.csv", "file")])
def test_files_of_every_kind_have_samples(tmp_path: Path, name: str, passages: str) -> None:
    file = tmp_path / "data" / name
    file.parent.mkdir()
    file.write_text("text\nwords\n")
    source = Source.model_validate({"name": "s", "path": "data", "passages": passages})
    (before,) = list_shards(source, tmp_path)
    state = file.stat()
    file.write_text("text\nwordy\n")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    (after,) = list_shards(source, tmp_path)
    assert after.version != before.version
    assert after.version.partition("~")[0] == before.version.partition("~")[0]
