"""Which buckets later versions of a Delta table changed, by its change feed or by its log alone."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.data.formats.delta_buckets import BucketedTable
from lorif_assets.data.formats.delta_changes import Changes, bucket_sizes, changes, incremental_changes

BUCKETS = 4
FEED = {"delta.enableChangeDataFeed": "true"}


def texts(first: int, n: int, said: str = "text") -> pa.Table:
    rows = [{"id": f"r{k}", "text": f"{said} {k}", "language": ("de", "en")[k % 2]} for k in range(first, first + n)]
    return pa.Table.from_pylist(rows)


def bucketed(path: Path) -> BucketedTable:
    return BucketedTable.of(str(path), "id", BUCKETS, {})


def buckets(table: BucketedTable, *ids: str) -> Mapping[int, int]:
    return Counter(table.bucket_of(row_id) for row_id in ids)


def remove_files(path: Path, pattern: str) -> None:
    for file in path.glob(pattern):
        file.unlink()


@pytest.fixture(params=[FEED, {}], ids=["with a feed", "without a feed"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A table of 20 rows in two partitions."""
    write_deltalake(tmp_path / "table", texts(0, 20), partition_by=["language"], configuration=request.param)
    return tmp_path / "table"


def compact(table: DeltaTable) -> None:
    table.optimize.compact()


def reorder(table: DeltaTable) -> None:
    table.optimize.z_order(["id"])


def vacuum(table: DeltaTable) -> None:
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)


def compact_and_vacuum(table: DeltaTable) -> None:
    compact(table)
    vacuum(table)


def set_properties(table: DeltaTable) -> None:
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 7 days"})


class TestWhatChanged:
    def test_nothing_between_a_version_and_itself(self, path: Path) -> None:
        table = bucketed(path)
        assert changes(table, table.version(), table.version()) == Changes({})

    def test_appended_rows_touch_their_buckets_alone(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        write_deltalake(path, texts(101, 1), mode="append")
        assert changes(table, before, table.version()) == Changes(buckets(table, "r101"))

    def test_an_edited_row_touches_its_bucket_alone(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        DeltaTable(path).update(predicate="id = 'r7'", updates={"text": "'edited'"})
        assert changes(table, before, table.version()) == Changes({table.bucket_of("r7"): 0})

    def test_deleted_rows_touch_their_buckets_alone(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        DeltaTable(path).delete("id = 'r7'")
        assert changes(table, before, table.version()) == Changes({table.bucket_of("r7"): -1})

    def test_a_row_that_moves_to_another_partition_touches_its_bucket(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        DeltaTable(path).update(predicate="id = 'r7'", updates={"language": "'de'"})
        assert changes(table, before, table.version()) == Changes({table.bucket_of("r7"): 0})

    def test_rows_written_again_as_they_were_touch_nothing(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        DeltaTable(path).update(updates={"text": "text"})
        write_deltalake(path, texts(0, 20), mode="overwrite")
        assert changes(table, before, table.version()) == Changes({})

    def test_a_merge_touches_the_rows_that_it_updates_and_inserts(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        merge = DeltaTable(path).merge(texts(19, 2, "merged"), "s.id = t.id", source_alias="s", target_alias="t")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()
        expected = {table.bucket_of("r19"): 0}
        expected[table.bucket_of("r20")] = 1
        assert changes(table, before, table.version()) == Changes(expected)

    @pytest.mark.parametrize("upkeep", [compact, reorder, compact_and_vacuum, set_properties])
    def test_upkeep_touches_nothing_and_reads_no_data(self, path: Path, upkeep: Callable[[DeltaTable], None]) -> None:
        write_deltalake(path, texts(20, 10), mode="append")
        table = bucketed(path)
        before = table.version()
        upkeep(DeltaTable(path))
        assert table.version() != before
        remove_files(path, "**/*.parquet")
        assert changes(table, before, table.version()) == Changes({})

    def test_an_edit_is_found_among_the_compactions_around_it(self, path: Path) -> None:
        write_deltalake(path, texts(20, 10), mode="append")
        table = bucketed(path)
        before = table.version()
        compact(DeltaTable(path))
        DeltaTable(path).update(predicate="id = 'r7'", updates={"text": "'edited'"})
        reorder(DeltaTable(path))
        assert changes(table, before, table.version()) == Changes({table.bucket_of("r7"): 0})

    @settings(max_examples=15)
    @given(
        feed=st.sampled_from([FEED, {}]),
        edits=st.lists(st.tuples(st.sampled_from(["append", "edit", "delete", "compact"]), st.integers(0, 7))),
    )
    def test_a_bucket_is_touched_if_and_only_if_its_rows_differ(
        self, feed: dict[str, str], edits: list[tuple[str, int]]
    ) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder)
            write_deltalake(path, texts(0, 6), configuration=feed)
            table = bucketed(path)
            first = table.version()
            for step, (kind, k) in enumerate(edits):
                if kind == "append":
                    write_deltalake(path, texts(k, 1), mode="append")
                elif kind == "edit":
                    DeltaTable(path).update(predicate=f"id = 'r{k}'", updates={"text": f"'{step}'"})
                elif kind == "delete":
                    DeltaTable(path).delete(f"id = 'r{k}'")
                else:
                    compact(DeltaTable(path))
            last = table.version()
            found = changes(table, first, last)
            for bucket in range(BUCKETS):
                then, now = table.rows(first, bucket), table.rows(last, bucket)
                assert found.touches(bucket) == (then != now)
                assert found.row_changes.get(bucket, 0) == (len(now) - len(then) if then != now else 0)


class TestLostHistory:
    def test_a_log_that_was_cut_is_said_and_every_bucket_may_have_changed(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        write_deltalake(path, texts(20, 1), mode="append")
        DeltaTable(path).create_checkpoint()
        remove_files(path, "_delta_log/*0.json")
        found = changes(table, before, table.version())
        assert found.gap.startswith("its history since version 0 cannot be read")
        assert all(found.touches(bucket) for bucket in range(BUCKETS))

    def test_vacuumed_rows_are_known_to_the_feed_alone(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        DeltaTable(path).update(predicate="id = 'r7'", updates={"text": "'edited'"})
        vacuum(DeltaTable(path))
        found = changes(table, before, table.version())
        if DeltaTable(path).metadata().configuration == FEED:
            assert found == Changes({table.bucket_of("r7"): 0})
        else:
            assert "cannot be read" in found.gap

    def test_a_fault_of_the_store_is_forgotten_when_it_has_passed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def timeout(_: BucketedTable) -> None:
            raise OSError("timeout")

        table = bucketed(path)
        before = table.version()
        DeltaTable(path).update(predicate="id = 'r7'", updates={"text": "'edited'"})
        after = table.version()
        with monkeypatch.context() as patch:
            patch.setattr(BucketedTable, "files", timeout)
            for ask in (changes, incremental_changes):
                assert "timeout" in ask(table, before, after).gap
        for ask in (changes, incremental_changes):
            assert ask(table, before, after) == Changes({table.bucket_of("r7"): 0})

    def test_a_new_column_may_change_every_row(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        more = pa.Table.from_pylist([{"id": "r20", "text": "a", "language": "en", "topic": "x"}])
        write_deltalake(path, more, mode="append", schema_mode="merge")
        assert changes(table, before, table.version()).gap == "its columns changed since version 0"

    def test_a_table_created_again_shares_no_history(self, path: Path) -> None:
        table = bucketed(path)
        before = table.version()
        shutil.rmtree(path)
        write_deltalake(path, texts(0, 20))
        assert changes(table, before, table.version()).gap == "the table was created again"

    def test_rows_hidden_by_deletion_vectors_are_not_taken_for_unchanged(self, tmp_path: Path) -> None:
        write_deltalake(tmp_path, texts(0, 20))
        table = bucketed(tmp_path)
        before = table.version()
        log = tmp_path / "_delta_log"
        entries = [json.loads(line) for line in (log / f"{0:020d}.json").read_text().splitlines()]
        (added,) = [entry["add"] for entry in entries if "add" in entry]
        vector = {"storageType": "i", "pathOrInlineDv": "x", "sizeInBytes": 1, "cardinality": 1}
        removed = {"path": added["path"], "dataChange": True, "deletionTimestamp": 0}
        actions: list[dict[str, Any]] = [{"remove": removed}, {"add": {**added, "deletionVector": vector}}]
        (log / f"{1:020d}.json").write_text("\n".join(map(json.dumps, actions)))
        assert "deletion vectors" in changes(table, before, table.version()).gap


class TestFollowing:
    def test_sizes_follow_the_rows_that_come_and_go(self, path: Path) -> None:
        table = bucketed(path)
        assert bucket_sizes(table, table.version()) == buckets(table, *(f"r{k}" for k in range(20)))
        write_deltalake(path, texts(20, 5), mode="append")
        DeltaTable(path).delete("id = 'r0'")
        assert bucket_sizes(table, table.version()) == buckets(table, *(f"r{k}" for k in range(1, 25)))

    def test_sizes_are_counted_again_where_history_is_gone(self, path: Path) -> None:
        table = bucketed(path)
        bucket_sizes(table, table.version())
        write_deltalake(path, texts(20, 5), mode="append")
        DeltaTable(path).create_checkpoint()
        remove_files(path, "_delta_log/*.json")
        assert bucket_sizes(table, table.version()) == buckets(table, *(f"r{k}" for k in range(25)))

    def test_sizes_after_upkeep_read_no_data(self, path: Path) -> None:
        write_deltalake(path, texts(20, 10), mode="append")
        table = bucketed(path)
        before = bucket_sizes(table, table.version())
        compact(DeltaTable(path))
        remove_files(path, "**/*.parquet")
        assert bucket_sizes(table, table.version()) == before

    def test_what_was_followed_once_is_not_read_again(self, path: Path) -> None:
        table = bucketed(path)
        first = table.version()
        DeltaTable(path).update(predicate="id = 'r7'", updates={"text": "'edited'"})
        incremental_changes(table, first, table.version())
        compact(DeltaTable(path))
        vacuum(DeltaTable(path))
        assert incremental_changes(table, first, table.version()) == Changes({table.bucket_of("r7"): 0})
