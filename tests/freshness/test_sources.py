"""Which shards of a Delta source are read again after a commit, and which keep what was read of them."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lorif_assets.automation.withdrawal import removed_shards, withdraw
from lorif_assets.config.settings import Settings
from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.formats.delta_buckets import BucketedTable
from lorif_assets.data.shards import survey
from lorif_assets.freshness.sources import stale_shards
from lorif_assets.freshness.stale import MISSING
from lorif_assets.lake.attribution_tables import CHECKPOINTS, GRADIENT_FACTORS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from tests.conftest import TinyProject

BUCKETS = 4


def rows(first: int, n: int) -> pa.Table:
    return pa.Table.from_pylist([{"id": f"r{k}", "text": f"a file number {k} ends"} for k in range(first, first + n)])


def shard_of(row_id: str) -> str:
    return f"table-{BucketedTable('table', 'id', BUCKETS).bucket_of(row_id):05d}"


def settings_with(base: Path, *, buckets: int = BUCKETS) -> Settings:
    source = Source(name="table", path="table", columns=Columns(id="id"), buckets=buckets)
    return Settings(sources=(source,), base=base)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_deltalake(tmp_path / "table", rows(0, 20), configuration={"delta.enableChangeDataFeed": "true"})
    return tmp_path / "table"


def versions(settings: Settings) -> dict[str, str]:
    return {piece.shard: piece.version for piece in survey(settings.sources, settings.base).shards}


def test_a_commit_asks_for_the_shards_of_the_rows_that_it_changed_alone(table: Path) -> None:
    settings = settings_with(table.parent)
    stored = versions(settings)
    DeltaTable(table).update(predicate="id = 'r7'", updates={"text": "'edited'"})
    stale = stale_shards(settings, stored)
    assert {shard: partition.reason for shard, partition in stale.items()} == {shard_of("r7"): "its source changed"}
    assert stale[shard_of("r7")].version == versions(settings)[shard_of("r7")] != stored[shard_of("r7")]


def test_shards_read_at_different_versions_are_each_compared_with_their_own(table: Path) -> None:
    settings = settings_with(table.parent)
    stored = versions(settings)
    DeltaTable(table).update(predicate="id = 'r7'", updates={"text": "'edited'"})
    stored[shard_of("r7")] = versions(settings)[shard_of("r7")]
    assert stale_shards(settings, stored) == {}
    DeltaTable(table).delete("id = 'r0'")
    assert stale_shards(settings, stored).keys() == {shard_of("r0")}


def test_a_shard_that_was_never_read_is_missing(table: Path) -> None:
    settings = settings_with(table.parent)
    stored = versions(settings)
    del stored[shard_of("r7")]
    DeltaTable(table).optimize.compact()
    assert {shard: stale.reason for shard, stale in stale_shards(settings, stored).items()} == {shard_of("r7"): MISSING}


def test_other_settings_of_the_source_ask_for_all_of_it(table: Path) -> None:
    stored = versions(settings_with(table.parent))
    stale = stale_shards(settings_with(table.parent, buckets=BUCKETS - 1), stored)
    assert len(stale) == BUCKETS - 1


def test_all_is_read_where_history_is_gone_and_the_reason_says_so(table: Path) -> None:
    settings = settings_with(table.parent)
    stored = versions(settings)
    write_deltalake(table, rows(20, 1), mode="append")
    DeltaTable(table).create_checkpoint()
    (table / "_delta_log" / f"{1:020d}.json").unlink()
    stale = stale_shards(settings, stored)
    assert stale.keys() == stored.keys()
    assert all("unknown: its history since version 0 cannot be read" in shard.reason for shard in stale.values())


def test_an_edit_in_a_delta_table_reaches_the_factors_of_its_shard_alone(private_project: TinyProject) -> None:
    root = private_project.root
    write_deltalake(root / "table", rows(0, 20))
    config = (root / "lorif.toml").read_text().replace('name = "docs"', 'name = "table"')
    config = config.replace('path = "data"', f'path = "table"\nbuckets = {BUCKETS}')
    (root / "lorif.toml").write_text(config)
    project = TinyProject.open(root, private_project.instance).with_settings(active={"checkpoints": "newest"})
    withdraw(project.lake, project.instance, sorted(project.table(TRAINING_EXAMPLES)["shard"].unique()))
    project.update()
    newest = project.table(CHECKPOINTS)["checkpoint"].max()
    DeltaTable(root / "table").update(predicate="id = 'r7'", updates={"text": "'its block fails by an error'"})
    DeltaTable(root / "table").optimize.compact()
    updated = project.update()
    assert updated["training_examples"] == {shard_of("r7")}
    assert updated["gradient_factors"] == {f"{newest}|{shard_of('r7')}"}

    DeltaTable(root / "table").delete("id = 'r0'")
    project.update()
    assert "r0" not in project.table(GRADIENT_FACTORS)["example_id"]

    ids = pl.Series([f"r{k}" for k in range(20)])
    leaving = ids.filter(ids.map_elements(shard_of, return_dtype=pl.String) == shard_of("r7"))
    DeltaTable(root / "table").delete(f"id in ({', '.join(repr(row_id) for row_id in leaving)})")
    assert removed_shards(project.lake, project.freshness.discovered) == [shard_of("r7")]
    assert project.update() == {}
