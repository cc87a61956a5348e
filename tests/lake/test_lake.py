"""What the lake promises: atomic replacement, concurrent writers, exact bytes back, readable by other tools."""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorif_assets.errors import TableError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.table_writing import drop
from lorif_assets.lake.tables import TABLES

LAYER, OTHER_LAYER = "transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(root=str(tmp_path / "lake"))


def rejected(part: str, n: int, reason: str = "empty") -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"stage": "s", "part": part, "example_id": f"{part}{i}", "row": i, "reason": reason, "excerpt": "..."}
            for i in range(n)
        ],
        REJECTED.columns,
    )


def replace_rejected(lake: Lake, part: str, n: int, reason: str = "empty") -> int:
    return lake.replace(REJECTED, {"stage": "s", "part": part}, rejected(part, n, reason))


def counts(lake: Lake) -> dict[str, int]:
    return dict(lake.read(REJECTED)["part"].value_counts().iter_rows())


def factors(checkpoint: str, shard: str, values: dict[str, Sequence[bytes]], *, kind: Any = None) -> pa.Table:
    """Rows of `gradient_factors` with the given bytes per layer."""
    n = len(next(iter(values.values())))
    fixed = {
        "checkpoint": checkpoint,
        "shard": shard,
        "loss": 1.0,
        "n_target_tokens": 1,
        "truncated": False,
        "recipe_hash": "r",
        "weights_hash": "w",
        "tokenizer_hash": "t",
        "projection": "p",
        "shard_hash": "s",
        "factor_codec": "fp32",
        "bases": "",
        "fisher": "",
    }
    rows = [{**fixed, "example_id": f"{shard}/{i}", "row": i} for i in range(n)]
    table = pa.Table.from_pylist(rows, GRADIENT_FACTORS.columns)
    for layer, data in values.items():
        table = table.append_column(layer, pa.array(data, kind or pa.large_binary()))
    return table


def replace_factors(lake: Lake, checkpoint: str, shard: str, values: dict[str, Sequence[bytes]]) -> None:
    partition = {"checkpoint": checkpoint, "shard": shard}
    lake.replace(GRADIENT_FACTORS, partition, factors(checkpoint, shard, values))


def streamed(lake: Lake, checkpoint: str, layer: str, rows: int) -> list[tuple[str, bytes]]:
    files = lake.factor_files(checkpoint)
    blocks = lake.stream_factors(files, [layer], rows)
    return [(file.shard, value) for file, block in blocks for value in block.column(layer).to_pylist()]


# --- Replacing a partition ---------------------------------------------------------------------------------------


def test_a_table_that_does_not_exist_yet_reads_as_no_rows(lake: Lake) -> None:
    assert lake.table(REJECTED) is None
    assert lake.read(REJECTED).schema == pl.from_arrow(REJECTED.columns.empty_table()).schema
    assert lake.read(REJECTED, ["part", "row"], part="x").columns == ["part", "row"]
    assert lake.factor_files("step-1") == []


def test_replacing_a_partition_leaves_the_others(lake: Lake) -> None:
    replace_rejected(lake, "a", 3)
    replace_rejected(lake, "b", 2)
    replace_rejected(lake, "a", 1, reason="new")
    assert counts(lake) == {"a": 1, "b": 2}
    assert lake.read(REJECTED, part="a")["reason"].to_list() == ["new"]


def test_replacing_by_no_rows_removes_the_partition(lake: Lake) -> None:
    replace_rejected(lake, "a", 3)
    replace_rejected(lake, "b", 2)
    replace_rejected(lake, "a", 0)
    assert counts(lake) == {"b": 2}
    assert not list(Path(lake.root, "rejected").glob("stage=s/part=nothing*"))


def test_each_replacement_is_one_commit(lake: Lake) -> None:
    versions = [replace_rejected(lake, "a", n) for n in (3, 2)]
    assert versions[1] == versions[0] + 1
    earlier = DeltaTable(lake.uri(REJECTED), version=versions[0])
    assert earlier.to_pyarrow_table().num_rows == 3


@pytest.mark.parametrize("part", ["it's", "a''b", 'say "x"', "my-model:7|docs-0", "ä ö", "50%", "a/b", "x=y", "a\\b"])
def test_any_text_can_be_a_partition_value(lake: Lake, part: str) -> None:
    replace_rejected(lake, part, 2)
    replace_rejected(lake, "other", 1)
    replace_rejected(lake, part, 3)
    assert counts(lake) == {part: 3, "other": 1}
    assert lake.read(REJECTED, part=part).height == 3


@pytest.mark.parametrize("checkpoint", ["step-000100", "my-model:7", "a@b+c=d"])
def test_factors_of_any_checkpoint_name_stream_back(lake: Lake, checkpoint: str) -> None:
    replace_factors(lake, checkpoint, "docs-0", {LAYER: [b"ab", b"cd"]})
    replace_factors(lake, "other", "docs-0", {LAYER: [b"xx"]})
    assert streamed(lake, checkpoint, LAYER, 10) == [("docs-0", b"ab"), ("docs-0", b"cd")]


# --- Refusals ----------------------------------------------------------------------------------------------------


def _without(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.drop_columns([column])


REFUSED: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a column too few": (_without("reason"), "rejected lack the column 'reason'"),
    "a column too many": (
        lambda rows: rows.append_column("extra", pa.array([1] * rows.num_rows)),
        "rejected have the unknown column 'extra'",
    ),
    "another type": (
        lambda rows: rows.set_column(3, "row", pa.array(["one"] * rows.num_rows)),
        "rejected do not have its types",
    ),
    "a nested type": (
        lambda rows: rows.set_column(3, "row", pa.array([[1]] * rows.num_rows)),
        "rejected do not have its types",
    ),
    "a row outside of the partition": (
        lambda rows: pa.concat_tables([rows, rejected("b", 1)]),
        "rejected with part = 'a' contain part = 'b'",
    ),
    "a row without a partition value": (
        lambda rows: rows.set_column(1, "part", pa.array([None] * rows.num_rows, pa.string())),
        "rejected with part = 'a' contain part = None",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_rows_that_do_not_fit_are_refused_and_the_table_stays(lake: Lake, what: str) -> None:
    damage, message = REFUSED[what]
    replace_rejected(lake, "a", 2)
    before = lake.read(REJECTED)
    with pytest.raises(TableError, match=message):
        lake.replace(REJECTED, {"stage": "s", "part": "a"}, damage(rejected("a", 3)))
    assert lake.read(REJECTED).equals(before)


def test_refused_rows_do_not_even_make_the_table(lake: Lake) -> None:
    with pytest.raises(TableError):
        lake.replace(REJECTED, {"stage": "s", "part": "a"}, rejected("b", 1))
    assert lake.table(REJECTED) is None


def test_many_partitions_are_removed_in_one_commit_and_the_others_stay(lake: Lake) -> None:
    names = ["a", "b's", "c, d", "été", "e"]
    for name in names:
        replace_rejected(lake, name, 2)
    table = lake.table(REJECTED)
    assert table is not None
    before = table.version()
    lake.remove(REJECTED, stage=["s"], part=names[1:4])
    table.update_incremental()
    assert table.version() == before + 1
    assert counts(lake) == {"a": 2, "e": 2}


def test_removing_what_is_not_there_commits_nothing(lake: Lake) -> None:
    lake.remove(REJECTED, part=["a"])
    version = replace_rejected(lake, "a", 1)
    lake.remove(REJECTED, stage=["another"], part=["a"])
    lake.remove(REJECTED, part=[])
    table = lake.table(REJECTED)
    assert table is not None
    assert table.version() == version
    assert counts(lake) == {"a": 1}


def test_partitions_can_be_removed_while_another_process_writes_others(lake: Lake) -> None:
    replace_rejected(lake, "a", 1)
    stale = lake.table(REJECTED)
    replace_rejected(lake, "b", 1)
    assert stale is not None
    drop(stale, {"part": ["a"]})
    assert counts(lake) == {"b": 1}


def test_a_partition_must_name_every_partition_column(lake: Lake) -> None:
    replace_rejected(lake, "a", 2)
    with pytest.raises(TableError, match="stage, part"):
        lake.replace(REJECTED, {"stage": "s"}, rejected("a", 1))
    assert counts(lake) == {"a": 2}


def test_columns_may_come_in_any_order_and_in_types_that_hold_the_same(lake: Lake) -> None:
    rows = rejected("a", 2)
    rows = rows.set_column(3, "row", rows["row"].cast(pa.int16())).select(sorted(rows.column_names))
    lake.replace(REJECTED, {"stage": "s", "part": "a"}, rows)
    assert lake.read(REJECTED).schema["row"] == pl.Int64


class _InjectedError(Exception):
    pass


def test_a_write_that_fails_leaves_the_old_rows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import deltalake

    replace_rejected(lake, "a", 2)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise _InjectedError

    with monkeypatch.context() as patch:
        patch.setattr(deltalake, "write_deltalake", fail)
        with pytest.raises(_InjectedError):
            replace_rejected(lake, "a", 5)
    assert counts(lake) == {"a": 2}


def test_data_files_without_a_commit_are_invisible(lake: Lake) -> None:
    """What a process that dies between writing its file and committing leaves behind."""
    replace_rejected(lake, "a", 2)
    folder = Path(lake.root, "rejected/stage=s/part=a")
    (file,) = folder.iterdir()
    (folder / "part-left-behind.parquet").write_bytes(file.read_bytes())
    assert counts(lake) == {"a": 2}
    replace_rejected(lake, "a", 1)
    assert counts(lake) == {"a": 1}


def test_a_table_that_lost_a_data_file_is_named(lake: Lake) -> None:
    replace_rejected(lake, "a", 2)
    (file,) = Path(lake.root, "rejected/stage=s/part=a").iterdir()
    file.unlink()
    with pytest.raises(TableError, match=r"the table .*/rejected has lost a data file; restore it"):
        lake.read(REJECTED)


def test_a_factor_file_that_is_gone_is_named_with_its_shard(lake: Lake) -> None:
    replace_factors(lake, "one", "docs-0", {LAYER: [b"ab"]})
    (listed,) = lake.factor_files("one")
    Path(lake.root, "gradient_factors", listed.path).unlink()
    with pytest.raises(TableError, match=r"is gone .*materialize `gradient_factors` for the shard 'docs-0' again"):
        list(lake.stream_factors([listed], [LAYER], 10))


def test_columns_that_came_after_a_table_was_written_read_as_null_and_come_with_the_next_rows(lake: Lake) -> None:
    partition = {"stage": "s", "part": "a"}
    earlier = TableSchema(
        REJECTED.name, REJECTED.partition_by, REJECTED.columns.remove(REJECTED.columns.get_field_index("excerpt"))
    )
    lake.replace(earlier, partition, rejected("a", 2).drop_columns(["excerpt"]))
    assert lake.read(REJECTED)["excerpt"].to_list() == [None, None]
    replace_rejected(lake, "b", 1)
    assert sorted(lake.read(REJECTED).select("part", "excerpt").rows()) == [("a", None), ("a", None), ("b", "...")]


def test_a_table_with_deletion_vectors_is_refused(lake: Lake) -> None:
    replace_rejected(lake, "a", 2)
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    log = Path(lake.root, "rejected/_delta_log")
    (log / f"{len(list(log.glob('*.json'))):020d}.json").write_text(json.dumps({"protocol": {**protocol, **features}}))
    with pytest.raises(TableError, match="deletion vectors"):
        lake.read(REJECTED)


# --- Concurrent writers ------------------------------------------------------------------------------------------

_barrier: Any = None


def _wait_for_all_to_start(barrier: Any) -> None:
    global _barrier  # noqa: PLW0603
    _barrier = barrier


def _replace_often(root: str, parts: Sequence[str]) -> None:
    _barrier.wait()
    for part in parts:
        for n in (1, 2, 3):
            replace_rejected(Lake(root=root), part, n)


def _write_factors(root: str, checkpoint: str, layer: str) -> None:
    _barrier.wait()
    for shard in range(3):
        replace_factors(Lake(root=root), checkpoint, f"docs-{shard}", {layer: [checkpoint.encode()] * 2})


@pytest.fixture(scope="module")
def two_processes() -> Iterator[ProcessPoolExecutor]:
    """Two processes that begin each pair of tasks at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2, timeout=120)
    with ProcessPoolExecutor(2, context, _wait_for_all_to_start, (barrier,)) as pool:
        yield pool


def test_two_processes_that_make_and_fill_one_table_lose_nothing(
    lake: Lake, two_processes: ProcessPoolExecutor
) -> None:
    parts = [[f"{side}{i}" for i in range(4)] for side in "ab"]
    list(two_processes.map(_replace_often, [lake.root] * 2, parts))
    assert counts(lake) == dict.fromkeys([*parts[0], *parts[1]], 3)


def test_two_processes_that_replace_one_partition_leave_the_rows_of_one_of_them(
    lake: Lake, two_processes: ProcessPoolExecutor
) -> None:
    list(two_processes.map(_replace_often, [lake.root] * 2, [["a"]] * 2))
    assert counts(lake) == {"a": 3}


def test_two_processes_that_add_columns_of_different_layers_lose_nothing(
    lake: Lake, two_processes: ProcessPoolExecutor
) -> None:
    list(two_processes.map(_write_factors, [lake.root] * 2, ["one", "two"], [LAYER, OTHER_LAYER]))
    for checkpoint, layer in (("one", LAYER), ("two", OTHER_LAYER)):
        assert [value for _, value in streamed(lake, checkpoint, layer, 100)] == [checkpoint.encode()] * 6


# --- Gradient factors --------------------------------------------------------------------------------------------


def test_factors_get_a_column_per_layer_which_is_null_where_a_checkpoint_lacks_the_layer(lake: Lake) -> None:
    replace_factors(lake, "one", "docs-0", {LAYER: [b"ab"]})
    replace_factors(lake, "two", "docs-0", {OTHER_LAYER: [b"cd"]})
    rows = lake.read(GRADIENT_FACTORS, ["checkpoint", LAYER, OTHER_LAYER]).sort("checkpoint").rows()
    assert rows == [("one", b"ab", None), ("two", None, b"cd")]


def test_a_shard_is_one_file_with_its_rows_in_order(lake: Lake) -> None:
    values = [bytes([i % 256]) * 8 for i in range(5_000)]
    replace_factors(lake, "one", "docs-1", {LAYER: values})
    replace_factors(lake, "one", "docs-0", {LAYER: values[:7]})
    assert [(file.shard, file.rows) for file in lake.factor_files("one")] == [("docs-0", 7), ("docs-1", 5_000)]
    assert [value for _, value in streamed(lake, "one", LAYER, 333)] == values[:7] + values


def test_a_file_of_small_factors_is_hardly_larger_than_their_bytes(lake: Lake) -> None:
    n, layers, width = 512, 48, 52
    value = np.random.default_rng(0).bytes
    replace_factors(lake, "one", "docs-0", {f"h.{i}": [value(width) for _ in range(n)] for i in range(layers)})
    (file,) = Path(lake.root).rglob("*.parquet")
    assert file.stat().st_size < 1.05 * n * layers * width


shard_values = st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shards=st.lists(shard_values, min_size=1, max_size=3), rows=st.integers(1, 15), kind=st.sampled_from(["", "large_"])
)
def test_streaming_returns_the_written_bytes_in_order_for_any_block_size(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[bytes]], rows: int, kind: str
) -> None:
    lake = Lake(root=str(tmp_path_factory.mktemp("lake")))
    for index, values in enumerate(shards):
        table = factors("one", f"docs-{index}", {LAYER: values}, kind=getattr(pa, f"{kind}binary")())
        lake.replace(GRADIENT_FACTORS, {"checkpoint": "one", "shard": f"docs-{index}"}, table)
    expected = [(f"docs-{index}", value) for index, values in enumerate(shards) for value in values]
    assert streamed(lake, "one", LAYER, rows) == expected


def test_streaming_reads_the_version_that_was_listed_though_the_shard_is_replaced_meanwhile(lake: Lake) -> None:
    replace_factors(lake, "one", "docs-0", {LAYER: [b"old"]})
    listed = lake.factor_files("one")
    replace_factors(lake, "one", "docs-0", {LAYER: [b"new"]})
    (values,) = [block.column(LAYER).to_pylist() for _, block in lake.stream_factors(listed, [LAYER], 10)]
    assert values == [b"old"]
    assert streamed(lake, "one", LAYER, 10) == [("docs-0", b"new")]


def test_a_column_of_the_wrong_type_for_a_layer_is_refused(lake: Lake) -> None:
    table = factors("one", "docs-0", {LAYER: [b"ab"]}).append_column("extra", pa.array([[1.5]]))
    with pytest.raises(TableError, match="do not have its types"):
        lake.replace(GRADIENT_FACTORS, {"checkpoint": "one", "shard": "docs-0"}, table)


# --- Other readers -----------------------------------------------------------------------------------------------


def test_duckdb_and_polars_read_what_was_written(lake: Lake) -> None:
    import duckdb

    replace_factors(lake, "one", "docs-0", {LAYER: [b"ab", b"cd"]})
    replace_factors(lake, "one", "docs-0", {LAYER: [b"ef"]})
    replace_factors(lake, "it's", "docs-1", {LAYER: [b"gh"]})
    # DuckDB's delta_scan is an extension to download: without it, the snapshot's files are read as what they are.
    files = DeltaTable(lake.uri(GRADIENT_FACTORS)).file_uris()
    by_duckdb = duckdb.read_parquet(files, hive_partitioning=True).project(f'checkpoint, shard, example_id, "{LAYER}"')
    by_polars = pl.scan_delta(lake.uri(GRADIENT_FACTORS)).select("checkpoint", "shard", "example_id", LAYER).collect()
    expected = [("it's", "docs-1", "docs-1/0", b"gh"), ("one", "docs-0", "docs-0/0", b"ef")]
    assert sorted(by_duckdb.fetchall()) == expected
    assert sorted(by_polars.rows()) == expected


@pytest.mark.parametrize("schema", TABLES.values(), ids=TABLES)
def test_every_table_keeps_its_declared_columns_and_types(lake: Lake, schema: TableSchema) -> None:
    partition = dict.fromkeys(schema.partition_by, "x")
    rows = pa.Table.from_pylist([partition], schema.columns)
    lake.replace(schema, partition, rows)
    back = DeltaTable(lake.uri(schema)).to_pyarrow_table()
    assert back.column_names == schema.columns.names
    assert lake.read(schema).equals(pl.from_arrow(rows))


def test_reading_selects_columns_and_rows(lake: Lake) -> None:
    for part in ("a", "b", "c"):
        replace_rejected(lake, part, 2)
    found = lake.read(REJECTED, ["part", "row"], part=["a", "c"], example_id=["a1", "b1", "c0"])
    assert sorted(found.rows()) == [("a", 1), ("c", 0)]
    assert lake.read(REJECTED, part=[]).is_empty()


# --- Tensors and files -------------------------------------------------------------------------------------------


def test_tensors_round_trip_and_are_never_overwritten(lake: Lake) -> None:
    import torch

    first = {"basis": torch.arange(6.0).reshape(2, 3).T, "count": torch.tensor(3), "half": torch.ones(2).bfloat16()}
    path, other = lake.write_tensors("states/one", first), lake.write_tensors("states/one", {"count": torch.tensor(4)})
    back = lake.read_tensors(path)
    assert path != other
    assert {name: (t.dtype, t.tolist()) for name, t in back.items()} == {
        name: (t.dtype, t.tolist()) for name, t in first.items()
    }


def test_a_lost_tensor_file_is_named(lake: Lake) -> None:
    import torch

    path = lake.write_tensors("states", {"a": torch.zeros(1)})
    Path(lake.root, path).unlink()
    with pytest.raises(TableError, match=f"has lost the file {path}.*materialize that row's partition again"):
        lake.read_tensors(path)


def test_a_damaged_tensor_file_is_named(lake: Lake) -> None:
    import torch

    path = lake.write_tensors("states", {"a": torch.zeros(100)})
    file = Path(lake.root, path)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(TableError, match=f"damaged tensors in the file {path}"):
        lake.read_tensors(path)


def test_a_file_is_replaced_in_one_step(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Path(lake.write_file("reports/one/q.html", b"first"))
    assert where == Path(lake.root, "reports/one/q.html")

    def fail(self: Path, target: Path) -> None:
        assert self.read_bytes() == b"second", "the new content is complete before it takes the name"
        assert target.read_bytes() == b"first"
        raise _InjectedError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(_InjectedError):
            lake.write_file("reports/one/q.html", b"second")
    assert where.read_bytes() == b"first"
    lake.write_file("reports/one/q.html", b"third")
    assert where.read_bytes() == b"third"


# --- Object stores -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_object_store_keeps_the_same_promises(object_store: Lake) -> None:
    import torch

    lake = object_store
    assert lake.read(REJECTED).is_empty()
    for part, n in (("a", 3), ("it's", 2), ("a", 1), ("b", 2), ("b", 0)):
        replace_rejected(lake, part, n)
    assert counts(lake) == {"a": 1, "it's": 2}

    replace_factors(lake, "my-model:7", "docs-1", {LAYER: [b"ab", b"cd"]})
    replace_factors(lake, "my-model:7", "docs-0", {LAYER: [b"ef"]})
    replace_factors(lake, "other", "docs-0", {OTHER_LAYER: [b"xx"]})
    assert streamed(lake, "my-model:7", LAYER, 1) == [("docs-0", b"ef"), ("docs-1", b"ab"), ("docs-1", b"cd")]

    # Larger than any buffer on the way.
    tensors = {"image": torch.randn(1_500_000)}
    path = lake.write_tensors("states/my-model:7", tensors)
    assert torch.equal(lake.read_tensors(path)["image"], tensors["image"])
    with pytest.raises(TableError, match="has lost the file states/nothing"):
        lake.read_tensors("states/nothing")

    assert lake.write_file("reports/q.html", b"first") == "s3://lake/project/reports/q.html"
    lake.write_file("reports/q.html", b"second")
    with lake.files.open_input_file("reports/q.html") as stream:
        assert stream.read() == b"second"


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_named_with_the_settings_to_look_at(object_store: Lake) -> None:
    elsewhere = Lake(root="s3://no-such-bucket/project", storage_options=object_store.storage_options)
    with pytest.raises(TableError, match=r"no-such-bucket.*check `lake\.root` and `lake\.storage_options`"):
        elsewhere.read(REJECTED)


@pytest.mark.parametrize(("layers", "width", "most"), [(4, 288, 1.05), (48, 52, 1.05), (48, 768, 1.01)])
def test_everything_beside_the_factors_takes_few_bytes(lake: Lake, layers: int, width: int, most: float) -> None:
    n, rng = 2_000, np.random.default_rng(0)
    hashes = dict.fromkeys(("recipe_hash", "weights_hash", "tokenizer_hash", "projection", "shard_hash"), "0f" * 16)
    constants = {
        "checkpoint": "step-1",
        "shard": "corpus-00000",
        "factor_codec": "sign",
        "bases": "",
        "fisher": "",
        **hashes,
    }
    rows = {
        "example_id": [f"corpus-00000/{row}" for row in range(n)],
        "row": pa.array(range(n), pa.int64()),
        "loss": pa.array(rng.random(n), pa.float32()),
        "n_target_tokens": pa.array(rng.integers(1, 512, n), pa.int32()),
        "truncated": rng.random(n) < 0.5,
        **{name: [value] * n for name, value in constants.items()},
        **{f"h.{x}": pa.array([rng.bytes(width) for _ in range(n)], pa.large_binary()) for x in range(layers)},
    }
    lake.replace(GRADIENT_FACTORS, {"checkpoint": "step-1", "shard": "corpus-00000"}, pa.table(rows))
    (file,) = Path(lake.uri(GRADIENT_FACTORS)).rglob("*.parquet")
    assert n * layers * width <= file.stat().st_size <= most * n * layers * width
