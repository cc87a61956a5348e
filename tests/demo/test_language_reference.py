import sys

import pytest

from lorif_assets.demo.language_reference import sections, topics_of_this_python
from lorif_assets.demo.passages import Entry
from lorif_assets.errors import SourceError

WITH = 'The "with" statement\n********************\n\nIt wraps a block.\n'
COMPOUND = """Compound statements
*******************

They contain others.


The "with" statement
====================

It wraps a block.


Nested
------

More about it.


Patterns
========

They match.
"""


@pytest.fixture
def found():
    return sections({"compound": COMPOUND, "with": WITH, "plain": "No heading here."})


def test_a_section_belongs_to_the_topic_that_bears_its_title(found):
    assert found["with"][1] == [Entry('The "with" statement', 'The "with" statement\nIt wraps a block.')]


def test_the_copy_in_the_specific_topic_comes_first(found):
    assert list(found) == ["plain", "with", "compound"]
    assert found["with"][0] == found["with"][1]


def test_a_subsection_belongs_to_the_topic_of_the_section_above_it(found):
    assert found["with"][2] == [Entry("Nested", "Nested\nMore about it.")]


def test_sections_that_no_other_topic_treats_stay_with_their_own(found):
    assert [entry.title for group in found["compound"] for entry in group] == ["Compound statements", "Patterns"]


def test_a_topic_without_a_heading_is_one_section_titled_by_its_name(found):
    assert found["plain"] == [[Entry("plain", "No heading here.")]]


def test_of_two_names_for_one_topic_the_shorter_name_wins():
    assert list(sections({"else": WITH, "if": WITH})) == ["if"]


def test_a_line_of_dashes_in_a_table_is_no_heading():
    assert list(sections({"table": "a    b\n---- ----\n1    2\n"})) == ["table"]
    assert sections({"table": "a    b\n---- ----\n1    2\n"})["table"][0][0].title == "table"


def test_a_python_without_topics_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(SourceError, match="install the full standard library"):
        topics_of_this_python()
