"""What lies at a source's path and is not read is listed, never passed over in silence."""

import os
from pathlib import Path
from typing import Any

import pytest

from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.formats.paths import locate, passed_over
from lorif_assets.data.shards import list_shards, passed_over_notice
from lorif_assets.errors import SourceError
from lorif_assets.freshness.surroundings import look_around
from tests.token_stores import indexed_files, mds_shard

ROW = '{"text": "a"}\n'


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in (
        "data/a.jsonl",
        "data/sub/b.jsonl",
        "data/sub/c.csv",
        "data/README.md",
        "data/.cache/d.csv",
        "elsewhere/e.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ROW)
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/f.jsonl").symlink_to(tmp_path / "elsewhere/e.jsonl")
    (tmp_path / "data/gone.jsonl").symlink_to(tmp_path / "nowhere")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "settings", "names"),
    [
        ("data", {}, ["README.md", "gone.jsonl (a broken link)", "linked (a linked folder)", "sub/c.csv"]),
        (
            "data",
            {"format": "csv"},
            [
                "README.md",
                "a.jsonl",
                "f.jsonl",
                "gone.jsonl (a broken link)",
                "linked (a linked folder)",
                "sub/b.jsonl",
            ],
        ),
        ("data/*.jsonl", {}, ["gone.jsonl (a broken link)"]),
        ("data/**/*.jsonl", {}, ["gone.jsonl (a broken link)", "linked (a linked folder)"]),
        ("data/*/*", {}, ["sub/c.csv"]),
        ("data/a.jsonl", {}, []),
        ("elsewhere", {}, []),
        ("data/linked", {}, []),
    ],
)
def test_what_is_covered_and_not_read_is_listed(
    base: Path, path: str, settings: dict[str, Any], names: list[str]
) -> None:
    assert passed_over(Source(name="s", path=path, **settings), base) == tuple(names)


def test_a_folder_that_a_pattern_takes_for_a_file_is_listed(base: Path) -> None:
    (base / "data/parts.jsonl").mkdir()
    (base / "data/parts.jsonl/0.jsonl").write_text(ROW)
    listed = ("gone.jsonl (a broken link)", "parts.jsonl (a folder)")
    assert passed_over(Source(name="s", path="data/*.jsonl"), base) == listed
    assert passed_over(Source(name="s", path="elsewhere"), base) == ()


def test_pipes_and_devices_are_listed_and_never_opened(base: Path) -> None:
    os.mkfifo(base / "elsewhere/pipe.jsonl")
    (base / "elsewhere/zero.jsonl").symlink_to("/dev/zero")
    (base / "elsewhere/loop.jsonl").symlink_to("loop.jsonl")
    source = Source(name="s", path="elsewhere")
    assert passed_over(source, base) == (
        "loop.jsonl (a broken link)",
        "pipe.jsonl (a pipe, a socket or a device)",
        "zero.jsonl (a pipe, a socket or a device)",
    )
    assert [piece.shard for piece in list_shards(source, base)] == ["s-e-00000"]
    with pytest.raises(SourceError, match=r"pipe\.jsonl is a pipe, a socket or a device. Give the path of a file"):
        list_shards(Source(name="s", path="elsewhere/pipe.jsonl"), base)


def test_files_that_are_links_are_read_and_linked_folders_are_not(base: Path) -> None:
    shards = [piece.shard for piece in list_shards(Source(name="s", path="data"), base)]
    assert shards == ["s-a-00000", "s-f-00000", "s-sub_b-00000"]


def test_the_notice_names_some_and_counts_the_others(base: Path) -> None:
    for k in range(4):
        (base / f"data/{k}.log").write_text("")
    notice = passed_over_notice(Source(name="s", path="data"), base)
    assert notice is not None
    assert notice.startswith(
        "passed over in data: 0.log, 1.log, 2.log, 3.log, README.md and 3 more. Where that is data"
    )
    assert passed_over_notice(Source(name="s", path="elsewhere"), base) is None


WRITTEN = ("b.jsonl.tmp", "c.jsonl.part", "d.jsonl~", "e.jsonl.crdownload", "f.jsonl.inprogress", ".g.jsonl.swp")


def test_of_a_pattern_with_a_format_files_that_are_being_written_are_none(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "h.json-lines", *WRITTEN):
        (tmp_path / "data" / name).write_text(ROW)
    settings: dict[str, Any] = {"columns": {"text": "text"}, "format": "jsonl"}
    source = Source(name="s", path="data/*", **settings)
    assert [piece.uri for piece in list_shards(source, tmp_path)] == ["data/a.jsonl", "data/h.json-lines"]
    assert passed_over(source, tmp_path) == tuple(sorted(name for name in WRITTEN if not name.startswith(".")))
    named = Source(name="s", path="data/*.jsonl~", **settings)
    assert [piece.uri for piece in list_shards(named, tmp_path)] == ["data/d.jsonl~"], "a pattern may name them"


@pytest.mark.parametrize(
    ("mark", "table"),
    [
        ("_delta_log/00000000000000000000.json", "a Delta table"),
        ("metadata/00001-5f.metadata.json", "an Iceberg table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
    ],
)
@pytest.mark.parametrize("path", ["table/data", "table/data/*.jsonl", "table/**/*.jsonl", "lake"])
def test_files_of_a_table_are_refused_as_they_hold_rows_that_it_removed(
    tmp_path: Path, mark: str, table: str, path: str
) -> None:
    folder = tmp_path / ("lake/table" if path == "lake" else "table")
    for name in ("data/a.jsonl", mark):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(ROW)
    with pytest.raises(SourceError, match=rf"{folder} is {table}.*rows that it has since removed"):
        list_shards(Source(name="s", path=path, columns={"text": "text"}), tmp_path)


@pytest.mark.parametrize("name", ["train.bin", "train.npy", "other.idx", "shard-000000.tar"])
def test_streams_of_tokens_and_archives_are_refused_with_what_to_do_instead(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(bytes(range(256)) * 4)
    for path in ("data", f"data/{name}"):
        with pytest.raises(SourceError, match="save its rows as Parquet or JSON Lines"):
            list_shards(Source(name="tokens", path=path), tmp_path)


MADE_OF_ROWS = {
    **indexed_files("tokens_document", [[[1, 2, 3]]]),
    "shard.00000.mds": mds_shard({"text": "str"}, [[b"words"]]),
    "index.json": b'{"version": 2, "shards": []}',
}


@pytest.mark.parametrize("folder", ["data", "data/made"])
@pytest.mark.parametrize(("name", "kind"), [("rows.jsonl", "jsonl"), ("rows.json", "json"), ("rows.txt", "txt")])
def test_rows_are_read_and_what_a_trainer_made_of_them_is_passed_over(
    tmp_path: Path, name: str, kind: str, folder: str
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data" / name).write_text(ROW)
    for made, content in MADE_OF_ROWS.items():
        (tmp_path / folder / made).write_bytes(content)
    of = Source(name="docs", path="data")
    found, files = locate(of, tmp_path)
    assert (found, [file.name for file in files]) == (kind, [name])
    assert {"tokens_document.idx", "shard.00000.mds"} <= {Path(file).name for file in passed_over(of, tmp_path)}
    (piece,) = list_shards(Source(name="docs", path="data", format=SourceFormat.MDS), tmp_path)
    assert Path(piece.uri).name == "shard.00000.mds"


def test_rows_are_found_and_what_was_made_of_them_is_not(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.json").write_text(f"[{ROW}]")
    for name, content in indexed_files("rows_document", [[[1, 2, 3]]]).items():
        (tmp_path / "data" / name).write_bytes(content)
    assert [found.source.path for found in look_around(tmp_path).sources] == ["data/rows.json"]


def test_a_folder_that_would_be_read_as_a_note_is_found_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/LICENSE.txt").write_text("words")
    for name, content in {**indexed_files("a", [[[1, 2]]]), **indexed_files("b", [[[1, 2]]])}.items():
        (tmp_path / "data" / name).write_bytes(content)
    assert [found.source.path for found in look_around(tmp_path).sources] == ["data/a.idx", "data/b.idx"]
