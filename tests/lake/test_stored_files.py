"""Writing whole files to an object store."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lorif_assets.errors import StoreError
from lorif_assets.lake import stored_files
from lorif_assets.lake.stored_files import StoredFiles


class Store:
    """Takes a file after some errors, which come when it is closed, as a store's do."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        self.written: dict[str, bytes] = {}

    @contextmanager
    def open_output_stream(self, path: str, **_: Any) -> Iterator["Store"]:
        self.path = path
        yield self
        if self.errors:
            raise OSError(self.errors.pop(0))
        self.written[path] = self.content

    def write(self, content: bytes) -> None:
        self.content = content


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> StoredFiles:
    monkeypatch.setattr(stored_files, "_WRITES_AGAIN", (0.0, 0.0))
    return StoredFiles("az://lake/out")


def test_a_file_whose_pieces_went_with_those_of_another_process_is_written_again(
    files: StoredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(*["400 Bad Request: <Code>InvalidBlockList</Code>"] * 2)
    monkeypatch.setattr(StoredFiles, "system", store)
    files.write("a", b"content")
    assert store.written == {"a": b"content"}


@pytest.mark.parametrize("errors", [["403 Forbidden"], ["InvalidBlockList"] * 3], ids=["refused", "again and again"])
def test_what_a_store_does_not_take_is_an_error(
    files: StoredFiles, monkeypatch: pytest.MonkeyPatch, errors: list[str]
) -> None:
    store = Store(*errors)
    monkeypatch.setattr(StoredFiles, "system", store)
    with pytest.raises(StoreError, match=errors[0]):
        files.write("a", b"content")
    assert not store.errors
    assert not store.written
