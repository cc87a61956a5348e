"""Names of partitions that come from names of files: as tables, Dagster and pages can take them."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.partition_names import partition_name, partition_names
from lorif_assets.lake.table_writing import with_constants

ODD = ["日本語のとても長い名前" * 12, "a" * 250, "wait... what", "a\\b:c*d", "x\ty\n", "ॐ नमः", "🙂.v1", "\udcff"]


@pytest.mark.parametrize("text", ODD)
def test_dagster_and_the_lakes_tables_take_a_name(text: str, tmp_path: Path) -> None:
    name = partition_name(text)
    shards = dg.DynamicPartitionsDefinition(name="shards")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", [name])
        assert shards.get_partition_keys(dynamic_partitions_store=instance) == [name]
    texts = {"example_id": ["r"], "reason": ["empty"], "place": ["docs.jsonl"], "excerpt": [""]}
    rows = pa.table({**texts, "row": pa.array([0], pa.int64())})
    partition = {"stage": "gradient_factors", "part": f"step-1|{name}"}
    lake = Lake(str(tmp_path / "lake"))
    lake.replace(REJECTED, partition, with_constants(rows, partition))
    assert lake.read(REJECTED, ["example_id"], part=partition["part"]).height == 1
    lake.write_file(f"reports/{name}.html", b"page")
    assert lake.read_file(f"reports/{name}.html") == b"page"


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=12), unique=True))
@example([":::", ":\ud800\U00018cd6"])
def test_no_two_files_have_one_name(texts: list[str]) -> None:
    names = partition_names({Path(f"{k}.jsonl"): (text, ".jsonl") for k, text in enumerate(texts)})
    assert len(set(names.values())) == len(texts)


def test_what_other_files_there_are_does_not_rename_one_whose_name_needed_no_change() -> None:
    alone = {Path("a_b.jsonl"): ("a_b", ".jsonl")}
    assert (
        partition_names({**alone, Path("a b.jsonl"): ("a b", ".jsonl")})[Path("a_b.jsonl")]
        == partition_names(alone)[Path("a_b.jsonl")]
    )


@pytest.mark.parametrize("folder", ["", "en/", "a b/"])
def test_a_file_and_its_compressed_copy_are_left_with_one_name(folder: str) -> None:
    files = {
        Path(folder + name): (f"{folder}a", suffix) for name, suffix in (("a.jsonl", ".jsonl"), ("a.gz", ".jsonl.gz"))
    }
    (name,) = {*partition_names(files).values()}
    assert name == partition_name(f"{folder}a")


def test_a_copy_has_the_name_of_its_file_beside_others_of_nearly_that_name_too() -> None:
    called = {"a b.x": ("a b", ".x"), "a b.x.gz": ("a b", ".x.gz"), "a_b.x": ("a_b", ".x"), "a b.X": ("a b", ".X")}
    names = partition_names({Path(file): text for file, text in called.items()})
    assert names[Path("a_b.x")] == "a_b"
    assert names[Path("a b.x")] == names[Path("a b.x.gz")] != "a_b"
    assert len({*names.values()}) == 3
