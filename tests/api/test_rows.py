"""Rows in any of the forms that callers have them in."""

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from lorif_assets.api.rows import normalised_rows
from lorif_assets.errors import SourceError

TABLE = {"id": ["a", "b"], "prompt": ["one ", "two "], "completion": ["more", "fewer"], "n": [1, None]}


def read(rows):
    return normalised_rows(rows, None, "examples")


@pytest.mark.parametrize("form", [pd.DataFrame, pa.table, Dataset.from_dict])
def test_a_table_of_any_kind_is_the_same_rows(form):
    expected = read(pl.DataFrame(TABLE))
    found = read(form(TABLE))
    assert [row["prompt"] + row["completion"] for row in found.examples.to_pylist()] == ["one more", "two fewer"]
    assert found.examples["example_id"].to_pylist() == ["a", "b"]
    assert found.examples["content_hash"] == expected.examples["content_hash"]


def test_a_pandas_tables_index_is_no_column_and_a_missing_text_sets_its_row_aside():
    found = read(pd.DataFrame({"text": ["one more", None, "two fewer"]}, index=["x", "y", "z"]))
    assert found.examples["example_id"].to_pylist() == ["0", "2"]
    assert found.rejected["row"].to_pylist() == [1]


def test_an_iterator_of_texts_is_read():
    assert read(text for text in ("one more", "two")).examples["text"].to_pylist() == ["one more", "two"]


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ("a text", "str"),
        (b"a text", "bytes"),
        ({"text": "a text"}, "dict"),
        (DatasetDict(train=Dataset.from_dict(TABLE)), "DatasetDict"),
        (pl.LazyFrame(TABLE), "LazyFrame"),
        (pa.RecordBatch.from_pydict(TABLE), "RecordBatch"),
        (3, "int"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_list_of_rows_is_refused_by_its_kind(rows, kind):
    with pytest.raises(
        SourceError, match=f"the examples are one {kind}; expected a list of texts or of rows, or a table"
    ):
        read(rows)


def test_a_pandas_table_that_cannot_be_read_says_why():
    with pytest.raises(
        SourceError, match=r"the pandas table of examples cannot be read: .*; or give a list of mappings"
    ):
        read(pd.DataFrame({"text": ["one", 2]}))
    with pytest.raises(SourceError, match="the table of examples has columns or fields of one name"):
        read(pd.DataFrame([["one", "two"]], columns=["text", "text"]))
