"""Plain text: passages are files or paragraphs, their ids stay, and what is no text is set aside."""

import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.examples import NormalisedShard, normalise
from lorif_assets.data.formats import txt
from lorif_assets.data.shards import list_shards, read_shard, read_source
from lorif_assets.errors import SourceError


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)


def source(path: str = "data", **others: Any) -> Source:
    return Source(name="docs", path=path, **others)


def normalised(of: Source, base: Path) -> dict[str, NormalisedShard]:
    read = {piece.shard: read_shard(of, piece, base) for piece in list_shards(of, base)}
    return {shard: normalise(raw, of.columns, shard) for shard, raw in read.items()}


def texts(of: Source, base: Path) -> list[tuple[str, str]]:
    rows = [row for shard in normalised(of, base).values() for row in shard.examples.to_pylist()]
    return [(row["example_id"], row["text"]) for row in rows]


def rejected(of: Source, base: Path) -> list[tuple[int, str]]:
    rows = [row for shard in normalised(of, base).values() for row in shard.rejected.to_pylist()]
    return [(row["row"], row["reason"]) for row in rows]


class TestFiles:
    def test_each_file_of_a_folder_is_a_passage_that_is_named_after_it(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"b.txt": "second\n", "a.TXT": "first\n\nstill first", "deep/er/c.txt": "third"})
        write(tmp_path / "data", {".hidden.txt": "no", "_draft.txt": "no", "notes.md": "no"})
        assert texts(source(), tmp_path) == [
            ("docs/a.TXT", "first\n\nstill first"),
            ("docs/b.txt", "second"),
            ("docs/deep/er/c.txt", "third"),
        ]

    def test_files_are_dealt_to_shards_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {f"{k:02d}.txt": f"text {k}" for k in range(25)})
        found = list_shards(source(rows_per_shard=10), tmp_path)
        assert [(piece.shard, piece.offset, piece.rows) for piece in found] == [
            ("docs-00000", 0, 10),
            ("docs-00001", 10, 10),
            ("docs-00002", 20, 5),
        ]
        assert texts(source(rows_per_shard=10), tmp_path) == [(f"docs/{k:02d}.txt", f"text {k}") for k in range(25)]

    @pytest.mark.parametrize("path", ["data/a.txt", "data/*.txt", "data/*", "data"])
    def test_one_file_a_glob_and_a_folder_are_read(self, tmp_path: Path, path: str) -> None:
        write(tmp_path / "data", {"a.txt": "words"})
        assert texts(source(path), tmp_path) == [("docs/a.txt", "words")]

    def test_a_change_makes_another_version_of_its_own_shard_alone(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {f"{k}.txt": f"text {k}" for k in range(6)})
        of = source(rows_per_shard=2)
        before = list_shards(of, tmp_path)
        write(tmp_path / "data", {"3.txt": "other words", "6.txt": "new"})
        after = {piece.shard: piece.version for piece in list_shards(of, tmp_path)}
        same = [after[piece.shard] == piece.version for piece in before]
        assert same == [True, False, True]
        assert list(after) == [*(piece.shard for piece in before), "docs-00003"]
        with pytest.raises(SourceError, match=r"files of data have changed .* \(2 from 2\.txt on\)\. List them again"):
            read_shard(of, before[1], tmp_path)
        assert [row for row, _ in read_shard(of, before[2], tmp_path).rows] == [0, 1]

    def test_a_file_that_was_written_over_with_as_many_bytes_is_another_version(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"a.txt": "one"})
        (before,) = list_shards(source(), tmp_path)
        write(tmp_path / "data", {"a.txt": "two"})
        os.utime(tmp_path / "data" / "a.txt", ns=(1, 1))
        (after,) = list_shards(source(), tmp_path)
        assert after.version != before.version

    def test_a_renamed_file_is_another_version(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"a.txt": "one"})
        (before,) = list_shards(source(), tmp_path)
        (tmp_path / "data" / "a.txt").rename(tmp_path / "data" / "b.txt")
        (after,) = list_shards(source(), tmp_path)
        assert after.version != before.version

    def test_what_is_no_passage_is_set_aside_with_its_file_and_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(txt, "_LARGEST_PASSAGE", 64)
        write(
            tmp_path / "data",
            {
                "a_good.txt": "words",
                "b_empty.txt": "",
                "c_blank.txt": " \r\n\r\n",
                "d_latin.txt": b"caf\xe9",
                "e_binary.txt": b"MZ\0\0",
                "f_utf16.txt": "words".encode("utf-16"),
                "g_large.txt": "x" * 65,
                "h_full.txt": "x" * 64,
            },
        )
        assert [name for name, _ in texts(source(), tmp_path)] == ["docs/a_good.txt", "docs/h_full.txt"]
        assert rejected(source(), tmp_path) == [
            (1, "text is empty"),
            (2, "text is empty"),
            (3, "docs/d_latin.txt: not UTF-8: unexpected end of data at byte 3; save it as UTF-8"),
            (4, "docs/e_binary.txt: a NUL at character 2: not plain text, or UTF-16; save it as UTF-8"),
            (5, "docs/f_utf16.txt: not UTF-8: invalid start byte at byte 0; save it as UTF-8"),
            (
                6,
                'docs/g_large.txt: larger than 0 MiB, the most of a passage; with passages = "paragraph", blank lines cut it',
            ),
        ]

    def test_a_byte_order_mark_and_the_ends_of_lines_do_not_make_another_example(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"a.txt": "  one\n\n\ttwo", "b.txt": b"\xef\xbb\xbf\r\n  one\r\n\r\n\ttwo\r\n\r\n"})
        (shard,) = normalised(source(), tmp_path).values()
        first, second = shard.examples["content_hash"].to_pylist()
        assert first == second
        assert shard.examples["text"].to_pylist()[0] == "  one\n\n\ttwo"

    def test_names_that_differ_in_signs_alone_are_two_passages(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"a b.txt": "one", "a_b.txt": "two"})
        assert texts(source(), tmp_path) == [("docs/a b.txt", "one"), ("docs/a_b.txt", "two")]

    def test_a_query_set_keeps_the_ids_of_its_files(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"a.txt": "one", "b.txt": "two"})
        found = normalise(read_source(source(rows_per_shard=1), tmp_path), Columns(), "set")
        assert found.examples["example_id"].to_pylist() == ["docs/a.txt", "docs/b.txt"]


HOSTILE_LINES = st.sampled_from(
    [
        b"words",
        b"  indented",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\0",
        b"",
        b" \t",
        b"\r",
        "é\u2028x".encode(),
        b"longer words here",
    ]
)
FILES = st.builds(
    lambda lines, ending, last: ending.join(lines) + last,
    st.lists(HOSTILE_LINES, max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", b"\n", b"\r\n"]),
)


def paragraphs(content: bytes) -> list[bytes]:
    """What the reader does, in one pass over the whole: slow and obvious."""
    found: list[bytes] = [b""]
    for line in re.findall(rb"[^\n]*\n|[^\n]+\Z", content.removeprefix(b"\xef\xbb\xbf")):
        if line.strip():
            found[-1] += line
        elif found[-1]:
            found.append(b"")
    return [paragraph for paragraph in found if paragraph]


def readable(paragraph: bytes) -> str | None:
    try:
        text = paragraph.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.replace("\r\n", "\n").strip("\n")


class TestParagraphs:
    def test_paragraphs_of_each_file_are_cut_into_its_own_shards(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"a.txt": "one\nmore\n\n\n  two\n \nthree", "b/c.txt": "four\r\n\r\nfive\r\n"})
        of = source(passages="paragraph", rows_per_shard=2)
        assert texts(of, tmp_path) == [
            ("docs-a-00000/000000", "one\nmore"),
            ("docs-a-00000/000001", "  two"),
            ("docs-a-00001/000000", "three"),
            ("docs-b_c-00000/000000", "four"),
            ("docs-b_c-00000/000001", "five"),
        ]

    @settings(deadline=None)
    @given(content=FILES, rows_per_shard=st.integers(1, 4), longest=st.sampled_from([64, 1 << 20]))
    def test_any_file_gives_the_paragraphs_of_the_reference_however_it_is_cut(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes, rows_per_shard: int, longest: int
    ) -> None:
        base = tmp_path_factory.mktemp("any")
        (base / "a.txt").write_bytes(content)
        of, expected = source("a.txt", passages="paragraph", rows_per_shard=rows_per_shard), paragraphs(content)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(txt, "_LONGEST_PIECE", longest)
            if not expected:
                with pytest.raises(SourceError, match="is empty"):
                    list_shards(of, base)
                return
            found = list_shards(of, base)
            assert [piece.rows for piece in found] == [
                len(expected[start : start + rows_per_shard]) for start in range(0, len(expected), rows_per_shard)
            ]
            raw = [read_shard(of, piece, base) for piece in found]
        read = {
            (piece.offset + row): values["text"]
            for piece, shard in zip(found, raw, strict=True)
            for row, values in shard.rows
        }
        aside = {piece.offset + bad.row for piece, shard in zip(found, raw, strict=True) for bad in shard.malformed}
        assert read == {k: text for k, one in enumerate(expected) if (text := readable(one)) is not None}
        assert aside == set(range(len(expected))) - set(read)

    def test_a_line_that_is_longer_than_what_is_read_at_once_is_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(txt, "_LONGEST_PIECE", 4)
        monkeypatch.setattr(txt, "_LARGEST_PASSAGE", 32)
        write(tmp_path, {"a.txt": "abcdefgh\nij\n\n" + "k" * 33 + "\n\nlast"})
        of = source("a.txt", passages="paragraph")
        assert [text for _, text in texts(of, tmp_path)] == ["abcdefgh\nij", "last"]
        ((row, reason),) = rejected(of, tmp_path)
        assert (row, reason[:30]) == (1, "paragraph 1: larger than 0 MiB")

    def test_a_growing_file_renames_no_passage(self, tmp_path: Path) -> None:
        of = source("a.txt", passages="paragraph", rows_per_shard=2)
        write(tmp_path, {"a.txt": "one\n\ntwo\n\nthree"})
        before = texts(of, tmp_path)
        write(tmp_path, {"a.txt": "one\n\ntwo\n\nthree\n\nfour"})
        assert texts(of, tmp_path)[:3] == before

    def test_a_change_makes_another_version_and_refuses_the_old_shards(self, tmp_path: Path) -> None:
        of = source("a.txt", passages="paragraph")
        write(tmp_path, {"a.txt": "one"})
        (piece,) = list_shards(of, tmp_path)
        write(tmp_path, {"a.txt": "one\n\ntwo"})
        assert list_shards(of, tmp_path)[0].version != piece.version
        with pytest.raises(SourceError, match="has changed since"):
            read_shard(of, piece, tmp_path)

    def test_rows_are_counted_without_the_file_in_memory(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.txt": b"some words of a passage\n\n" * 200_000})
        of = source("a.txt", passages="paragraph", rows_per_shard=100_000)
        tracemalloc.start()
        found = list_shards(of, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [piece.rows for piece in found] == [100_000, 100_000]
        assert peak < 1 << 20


class TestWhatIsMeant:
    def test_passages_by_file_and_by_paragraph_are_two_versions(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.txt": "one"})
        (by_file,), (by_paragraph,) = (
            list_shards(source("a.txt", passages=one), tmp_path) for one in ("file", "paragraph")
        )
        assert by_file.version.split()[1] != by_paragraph.version.split()[1]

    def test_text_beside_data_of_another_format_is_none(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"README.txt": "about", "LICENSE.txt": "terms", "rows.jsonl": '{"text": "a row"}\n'})
        assert texts(source(), tmp_path) == [("docs-rows-00000/000000", "a row")]
        assert [text for _, text in texts(source(format="txt"), tmp_path)] == ["terms", "about"]

    def test_a_file_that_is_not_there_any_more_is_named(self, tmp_path: Path) -> None:
        write(tmp_path / "data", {"a.txt": "one", "b.txt": "two"})
        (piece,) = list_shards(source(), tmp_path)
        (tmp_path / "data" / "b.txt").unlink()
        with pytest.raises(SourceError, match="have changed since its shards were listed"):
            read_shard(source(), piece, tmp_path)
