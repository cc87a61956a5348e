"""Text that is not UTF-8, or whose lines end otherwise, is named for what it is, and never read as something else."""

import re
from pathlib import Path

import pytest

from lorif_assets.config.sources import Source
from lorif_assets.data.examples import sort_out
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import SourceError

JSON_LINES = '{"text": "one"}\n{"text": "two"}\n'
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
CSV = "text,n\none,1\ntwo,2\n"


@pytest.mark.parametrize(
    ("name", "content"), [("rows.jsonl", JSON_LINES), ("rows.json", JSON_LINES), ("rows.csv", CSV)]
)
@pytest.mark.parametrize(
    ("encoding", "called"),
    [
        *((encoding, "UTF-16") for encoding in ("utf-16", "utf-16-le", "utf-16-be")),
        ("utf-32", "UTF-32"),
    ],
)
def test_wide_characters_are_named_with_a_mark_or_without(
    tmp_path: Path, name: str, content: str, encoding: str, called: str
) -> None:
    (tmp_path / name).write_bytes(content.encode(encoding))
    with pytest.raises(SourceError, match=rf"{name} was to be read as .*, but it is {called}.*save it as UTF-8"):
        list_shards(Source(name="s", path=name), tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", '{"text": "Maß"}\n'), ("rows.json", '[{"text": "Maß"}]'), ("rows.csv", "text\nMaß\n")],
)
def test_text_of_one_byte_a_character_is_set_aside_for_its_encoding_in_every_format(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    source = Source(name="s", path=name)
    (piece,) = list_shards(source, tmp_path)
    (reason,) = (
        sort_out(read_shard(source, piece, tmp_path), source.columns, piece.shard).rejected["reason"].to_pylist()
    )
    assert re.search(r"not UTF-8.* at (character|byte) \d+; save it as UTF-8", reason)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_a_pointer_of_git_lfs_is_named_with_what_fetches_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(SourceError, match=rf"{name}.* is a pointer of Git LFS.*`git lfs pull`"):
        list_shards(Source(name="s", path=name), tmp_path)


def test_a_pointer_of_git_lfs_is_no_passage(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text(POINTER)
    source = Source(name="s", path="rows.txt")
    (piece,) = list_shards(source, tmp_path)
    (malformed,) = read_shard(source, piece, tmp_path).malformed
    assert ": a pointer of Git LFS in the place of the file itself" in malformed.reason


@pytest.mark.parametrize(("name", "content"), [("rows.jsonl", JSON_LINES), ("rows.csv", CSV)])
@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_a_mark_of_utf_8_and_line_ends_of_windows_are_no_part_of_the_rows(tmp_path, name, content, change):  # type: ignore[no-untyped-def]
    (tmp_path / name).write_bytes(change(content).encode())
    source = Source(name="s", path=name)
    (piece,) = list_shards(source, tmp_path)
    assert [row["text"] for _, row in read_shard(source, piece, tmp_path).rows] == ["one", "two"]


def test_lines_that_end_in_carriage_returns_alone_are_said_to(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(CSV.replace("\n", "\r").encode())
    with pytest.raises(
        SourceError, match="cannot be read as CSV: a carriage return that no line feed follows, in the row"
    ):
        list_shards(Source(name="s", path="rows.csv"), tmp_path)
