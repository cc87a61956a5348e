"""Lists of ids, one a line."""

from pathlib import Path

import pytest

from lorif_assets.data.id_lists import id_list, ids_of_file
from lorif_assets.errors import SourceError


def test_each_line_is_an_id_as_it_stands_and_empty_ones_are_left_out() -> None:
    # What some programs begin a text file with, and end its lines with, is not of an id; spaces, and what else is a new line
    # to Python, may be.
    content = "\ufeffa/1\r\n\n two \n  \nthree\u2028and\x0bmore".encode()
    assert id_list(content, "the list") == ("a/1", " two ", "three\u2028and\x0bmore")


@pytest.mark.parametrize(("content", "expected"), [(b"\n \n", "x has no id"), (b"\xff\xfe", "x is no text in UTF-8")])
def test_what_is_no_list_is_named(content: bytes, expected: str) -> None:
    with pytest.raises(SourceError, match=expected):
        id_list(content, "x")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.txt cannot be read"):
        ids_of_file(tmp_path / "none.txt")
