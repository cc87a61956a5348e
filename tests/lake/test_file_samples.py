"""A file is told from another of the same size and time by samples of its content, at the cost of one look per write."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.lake.file_samples import is_same_version, sample_of, with_sample

SMALL, LARGE = 1_000, 3_000_000


def replace(file: Path, content: bytes) -> None:
    """Write a file anew, with the time that it had."""
    state = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_file_that_was_replaced_has_another_sample_whatever_its_size_and_time_say(tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a" * size)
    before, state = sample_of(file), file.stat()
    replace(file, b"b" * size)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert sample_of(file) != before
    replace(file, b"a" * size)
    assert sample_of(file) == before


@pytest.mark.parametrize("at", [0, SMALL // 2, SMALL - 1])
def test_of_a_small_file_every_byte_counts(tmp_path: Path, at: int) -> None:
    file = tmp_path / "file"
    content = bytearray(SMALL)
    file.write_bytes(content)
    before = sample_of(file)
    content[at] = 1
    replace(file, content)
    assert sample_of(file) != before


@pytest.mark.parametrize("at", [0, LARGE - 1])
def test_of_a_large_file_head_and_tail_count(tmp_path: Path, at: int) -> None:
    file = tmp_path / "file"
    content = bytearray(LARGE)
    file.write_bytes(content)
    before = sample_of(file)
    content[at] = 1
    replace(file, content)
    assert sample_of(file) != before


def test_a_copy_elsewhere_has_the_same_sample(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"ab" * LARGE)
    assert sample_of(tmp_path / "one") == sample_of(tmp_path / "two")


def test_a_file_is_read_once_as_long_as_nobody_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    before = sample_of(file)
    opened = []
    monkeypatch.setattr(Path, "open", lambda path, *_: opened.append(path))
    assert sample_of(file) == before
    assert opened == []


def test_a_file_that_cannot_be_read_has_no_sample(tmp_path: Path) -> None:
    assert sample_of(tmp_path / "gone") == sample_of(tmp_path) == ""
    assert with_sample("10-20", "") == "10-20"


WORDS = st.lists(
    st.tuples(st.text("0123456789abcdef-", min_size=1), st.text("0123456789abcdef")), min_size=1, max_size=3
)


@given(words=WORDS)
def test_a_version_without_samples_is_the_same_and_one_with_another_sample_is_not(words: list[tuple[str, str]]) -> None:
    current = " ".join(with_sample(*word) for word in words)
    assert is_same_version(current, current)
    assert is_same_version(" ".join(version for version, _ in words), current)
    if all(sample for _, sample in words):
        assert not is_same_version(" ".join(with_sample(version, sample + "0") for version, sample in words), current)
        assert not is_same_version(current, " ".join(version for version, _ in words))
