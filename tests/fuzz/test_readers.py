"""Whatever a stranger's file holds, it is read or refused in words: no crash, no hang, no memory without end."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.files import Valid, valid_files
from tests.fuzz.mutations import mutated
from tests.fuzz.readers import ReaderProcess


@functools.cache
def _valid() -> dict[str, Valid]:
    with tempfile.TemporaryDirectory() as scratch:
        return valid_files(Path(scratch))


@pytest.fixture(scope="module")
def reader() -> Iterator[ReaderProcess]:
    process = ReaderProcess()
    yield process
    process.end()


def test_what_the_mutations_are_made_of_is_read(reader: ReaderProcess) -> None:
    for name, valid in _valid().items():
        assert reader.fault(valid.use, valid.files) is None, name
    assert reader.outcomes == {"read": len(_valid())}


@given(st.data())
def test_any_file_is_read_or_refused(reader: ReaderProcess, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(_valid())))
    valid = _valid()[name]
    content = data.draw(mutated(valid.content, [one.content for one in _valid().values()]))
    found = reader.fault(valid.use, {**valid.files, valid.damaged: content})
    assert found is None, f"{name}: {found}"
