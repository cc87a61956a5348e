"""The tables' declarations: what readers outside of Python rely on."""

import pyarrow as pa
import pytest

from lorif_assets.lake.data_tables import EXAMPLE_CONTENT, QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.tables import TABLES


def test_tables_are_found_by_their_names() -> None:
    assert {name: schema.name for name, schema in TABLES.items()} == {name: name for name in TABLES}
    assert set(TABLES) >= {
        "training_examples",
        "query_examples",
        "rejected",
        "checkpoints",
        "gradient_factors",
        "svd_preconditioners",
        "query_scores",
        "query_summaries",
        "reports",
    }


@pytest.mark.parametrize("schema", TABLES.values(), ids=TABLES)
def test_partition_columns_are_text_columns_of_the_table(schema: TableSchema) -> None:
    assert schema.partition_by
    assert {schema.columns.field(name).type for name in schema.partition_by} == {pa.string()}
    assert len(set(schema.columns.names)) == len(schema.columns.names)


def test_only_gradient_factors_are_open_to_columns_of_layers() -> None:
    assert {name: schema.open_columns for name, schema in TABLES.items() if schema.open_columns} == {
        "gradient_factors": pa.large_binary()
    }


def test_training_and_query_examples_hold_the_same_content() -> None:
    for schema in (TRAINING_EXAMPLES, QUERY_EXAMPLES):
        assert {name: schema.columns.field(name).type for name in EXAMPLE_CONTENT} == dict(EXAMPLE_CONTENT)


@pytest.mark.parametrize("schema", TABLES.values(), ids=TABLES)
def test_every_table_says_what_a_row_is_and_what_each_column_means(schema: TableSchema) -> None:
    assert schema.row.endswith(".")
    assert schema.meanings.keys() == set(schema.columns.names)
    assert all(schema.meanings.values())
