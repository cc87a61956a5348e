import sys
from pathlib import Path

import pytest

from lorif_assets.demo.standard_library import docstrings, standard_library
from lorif_assets.errors import SourceError

CONTEXTLIB = '''"""Utilities for with-statements."""

raise RuntimeError("importing this file is an error")

class closing:
    """Close a thing at the end."""

    def __enter__(self):
        """Private by its name."""

    def detach(self, thing, *, now=True):
        """Let go of the thing."""
        def inner():
            """Not visible from outside."""

if True:
    def nullcontext():
        """Do nothing."""

def _hidden():
    """Not public."""
'''


@pytest.fixture
def library(tmp_path):
    files = {
        "contextlib.py": CONTEXTLIB,
        "json/__init__.py": '"""JSON."""',
        "json/decoder.py": '"""Decoding."""',
        "json/_private.py": '"""Private."""',
        "json/tests/test_json.py": '"""Tests."""',
        "_pydecimal.py": 'class Decimal:\n    """A number."""',
        "not_of_the_library.py": '"""Site code."""',
        "turtle.py": '"""Left out."""',
        "queue.py": "x = 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def texts(groups):
    return [entry.text for group in groups for entry in group]


def test_docstrings_stand_in_source_order_after_the_name_and_parameters_of_what_they_document(library):
    assert texts(docstrings(library)["contextlib"]) == [
        "module contextlib\nUtilities for with-statements.",
        "class contextlib.closing\nClose a thing at the end.",
        "contextlib.closing.detach(self, thing, *, now=True)\nLet go of the thing.",
        "contextlib.nullcontext()\nDo nothing.",
    ]


def test_a_package_is_one_topic_without_its_private_modules_and_tests(library):
    assert texts(docstrings(library)["json"]) == ["module json\nJSON.", "module json.decoder\nDecoding."]


def test_the_python_form_of_a_compiled_module_counts_as_that_module(library):
    assert texts(docstrings(library)["decimal"]) == ["class decimal.Decimal\nA number."]


def test_only_documented_modules_of_the_library_are_read_in_alphabetical_order(library):
    assert list(docstrings(library)) == ["contextlib", "decimal", "json"]


def test_the_order_of_the_file_system_does_not_matter(library, monkeypatch):
    expected = docstrings(library)
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: reversed(list(listed(path, pattern))))
    assert docstrings(library) == expected


def test_no_module_of_this_python_is_imported():
    before = set(sys.modules)
    docstrings(standard_library())
    assert not set(sys.modules) - before


def test_a_library_without_source_files_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="needs its source files"):
        docstrings(tmp_path)
