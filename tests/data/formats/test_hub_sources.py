"""Data sets on the hub as sources: which files are read, what makes their shards new, and what is refused."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorif_assets.config.sources import Source
from lorif_assets.data.formats.hub_selection import hub_notice
from lorif_assets.data.shards import list_shards, passed_over_notice, read_shard
from lorif_assets.errors import SourceError
from tests.hub_stand_in import HubStandIn


def jsonl(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def parquet(*texts: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), buffer)
    return buffer.getvalue()


def source(place: str = "", **fields: Any) -> Source:
    return Source(name="docs", path=f"hf://datasets/org/name{place}", **fields)


def texts(one: Source, base: Path) -> list[str]:
    return [
        values["text"] for piece in list_shards(one, base) for _, values in read_shard(one, piece, base).rows
    ]  # in the order of shards


CONFIGURED = b"""---
configs:
- config_name: en
  data_files:
  - split: train
    path: "english/*.jsonl"
  - split: extra
    path: ["more/**/e*.jsonl"]
- config_name: de
  data_files: "german/**"
---
# Two languages
"""
SPLIT = {"data/train-00000-of-00001.parquet": parquet("a", "b"), "data/test-00000-of-00001.parquet": parquet("c")}
TABLE = {"t/data/a.parquet": b"", "t/metadata/1-5f.metadata.json": b""}
LANGUAGES = {
    "README.md": CONFIGURED,
    "english/one.jsonl": jsonl("en"),
    "more/deep/e.jsonl": jsonl("extra"),
    "more/deep/x.jsonl": jsonl("no"),
    "german/deep/one.jsonl": jsonl("de"),
}


@pytest.mark.parametrize(
    ("files", "place", "split", "expected"),
    [
        (SPLIT, "", None, ["a", "b"]),
        (SPLIT, "", "test", ["c"]),
        (SPLIT, "@main/data/test-00000-of-00001.parquet", None, ["c"]),
        (SPLIT, "/data/*.parquet", None, ["c", "a", "b"]),
        (SPLIT, "/data", "test", ["c"]),
        ({"a.jsonl": jsonl("a"), "b.jsonl": jsonl("b")}, "", None, ["a", "b"]),
        ({"train/x.jsonl": jsonl("a"), "dev/x.jsonl": jsonl("b")}, "", "validation", ["b"]),
        ({"my-train.jsonl": jsonl("a"), "my-test.jsonl": jsonl("b")}, "", None, ["a"]),
        ({"x.jsonl": jsonl("a"), "dataset_infos.json": b"{}", "LICENSE": b"..."}, "", None, ["a"]),
        ({"rows.json": b'[{"text": "a"}]', "dataset_infos.json": b"{}"}, "", None, ["a"]),
        ({"a/x.jsonl": jsonl("a"), "b/x.jsonl": jsonl("b")}, "/b", None, ["b"]),
        (LANGUAGES, "/en", None, ["en"]),
        (LANGUAGES, "@main/en", "extra", ["extra"]),
        (LANGUAGES, "/de", None, ["de"]),
        ({"train.txt": b"passage"}, "", None, ["passage"]),
    ],
)
def test_files_are_those_of_the_place_configuration_and_split(
    hub: HubStandIn, tmp_path: Path, files: Mapping[str, bytes], place: str, split: str | None, expected: list[str]
) -> None:
    hub.dataset("org/name").commit(files)
    assert texts(source(place, split=split), tmp_path) == expected


def test_a_format_that_is_set_reads_files_of_any_name_below_a_pattern(hub: HubStandIn, tmp_path: Path) -> None:
    hub.dataset("org/name").commit({"rows/a.dat": jsonl("a"), "rows/b.dat": jsonl("b")})
    assert texts(source("/rows/*.dat", format="jsonl"), tmp_path) == ["a", "b"]
    assert texts(source("/rows/b.dat", format="jsonl"), tmp_path) == ["b"]


def test_only_the_files_that_are_read_are_downloaded(hub: HubStandIn, tmp_path: Path) -> None:
    hub.dataset("org/name").commit({**SPLIT, "README.md": b"# Rows", "large.bin": b"..."})
    assert len(texts(source(), tmp_path)) == 2
    assert set(hub.downloads()) == {".gitattributes", "README.md", "data/train-00000-of-00001.parquet"}


def test_a_new_commit_is_new_data_and_a_commit_in_the_name_stays(hub: HubStandIn, tmp_path: Path) -> None:
    first = hub.dataset("org/name").commit({"train.jsonl": jsonl("old")})
    followed, pinned = source(), source(f"@{first}")
    before = {one.path: list_shards(one, tmp_path) for one in (followed, pinned)}
    hub.dataset("org/name").commit({"train.jsonl": jsonl("new")})
    assert texts(followed, tmp_path) == ["new"]
    assert texts(pinned, tmp_path) == ["old"]
    assert list_shards(pinned, tmp_path) == before[pinned.path]
    (old,), (new,) = before[followed.path], list_shards(followed, tmp_path)
    assert old.shard == new.shard
    assert old.version != new.version
    assert read_shard(followed, old, tmp_path).rows[0][1] == {"text": "old"}, "a listed shard is read as it was listed"


def test_a_shard_has_the_same_version_on_every_machine(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.dataset("org/name").commit(SPLIT)
    (here,) = list_shards(source(), tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "of another machine"))
    (there,) = list_shards(source(), tmp_path)
    assert here == there
    assert here.uri == f"hf://datasets/org/name@{commit}/data/train-00000-of-00001.parquet"
    assert commit in here.version


def test_offline_the_cached_commit_is_read(hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.dataset("org/name").commit(SPLIT)
    listed = list_shards(source(), tmp_path)
    hub.close()
    assert list_shards(source(), tmp_path) == listed, "out of reach, the last commit seen is used"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert list_shards(source(), tmp_path) == listed
    assert texts(source(), tmp_path) == ["a", "b"]
    with pytest.raises(
        SourceError, match=r"source 'docs': data/test-\S+ of hf://datasets/org/name is not in the cache"
    ):
        list_shards(source(split="test"), tmp_path)


def test_what_may_move_and_what_was_not_asked_are_said(hub: HubStandIn, tmp_path: Path) -> None:
    commit = hub.dataset("org/name").commit(SPLIT)
    assert hub_notice(source()) == (
        f"follows 'main', which may move; hf://datasets/org/name@{commit} would stay as it is now"
    )
    assert f"hf://datasets/org/name@{commit}/data would stay" in str(hub_notice(source("/data")))
    assert hub_notice(source(f"@{commit}")) is None
    hub.close()
    assert "cannot be reached (" in str(hub_notice(source()))


def test_what_is_not_read_beside_the_data_is_listed(hub: HubStandIn, tmp_path: Path) -> None:
    hub.dataset("org/name").commit({**SPLIT, "README.md": b"", "notes.pdf": b"..."})
    assert "data/test-00000-of-00001.parquet, notes.pdf." in str(passed_over_notice(source(), tmp_path))
    assert passed_over_notice(source("/data/*"), tmp_path) is None


@pytest.mark.parametrize(
    ("files", "place", "fields", "message"),
    [
        (SPLIT, "", {"split": "dev"}, r"has no split 'dev'; found test, train. Set the source's `split`"),
        ({"a-test.jsonl": b"", "a-dev.jsonl": b""}, "", {}, r"has splits validation, test. Set the source's `split`"),
        (LANGUAGES, "", {}, r"has the configurations en, de; choose one in `path`, such as \S+@main/en"),
        (LANGUAGES, "/fr", {}, r"no data files are at \S+/fr; the repository has .*, and the configurations en, de"),
        ({"name.py": b"raise"}, "", {}, r"loading script is never run; .*hf://datasets/org/name@refs/convert/parquet"),
        ({"a.parquet": b"", "_delta_log/0.json": b""}, "", {}, r"is a Delta table"),
        (TABLE, "", {}, r"hf://datasets/org/name@\w+/t is an Iceberg table"),
        (TABLE, "/t/data/*.parquet", {}, r"hf://datasets/org/name@\w+/t is an Iceberg table"),
        ({"a.parquet": b"", "b.jsonl": b""}, "", {}, r"files of several formats \(1 jsonl and 1 parquet\)"),
        (
            {"README.md": b"---\nconfigs: [3]\n---\n", "a.jsonl": b""},
            "",
            {},
            r"configurations in .*README.md cannot be read",
        ),
        (SPLIT, "", {"storage_options": {"token": "t"}}, r"its token is taken from HF_TOKEN or `hf auth login`"),
        (SPLIT, "@v9", {}, r"'org/name' has no revision 'v9'"),
    ],
)
def test_what_cannot_be_chosen_is_said_with_the_way_out(
    hub: HubStandIn, tmp_path: Path, files: Mapping[str, bytes], place: str, fields: dict[str, Any], message: str
) -> None:
    hub.dataset("org/name").commit(files)
    with pytest.raises(SourceError, match=message) as refused:
        list_shards(source(place, **fields), tmp_path)
    assert str(refused.value).startswith("source 'docs': ")


def test_a_model_is_no_data_set(hub: HubStandIn, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a model; expected a data set, hf://datasets/org/name"):
        list_shards(Source(name="docs", path="hf://org/name"), tmp_path)


def test_splits_are_of_the_hub_alone() -> None:
    with pytest.raises(ValueError, match="`split` is for data sets on the hub"):
        Source(name="docs", path="data", split="train")
