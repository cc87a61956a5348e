"""Which files of a store or of the hub belong to a table of a lakehouse, by their names alone."""

import pytest

from lorif_assets.data.formats.lakehouse_tables import table_among

PLACE = "s3://lake/corpus"


@pytest.mark.parametrize(
    ("file", "mark", "said"),
    [
        ("a.parquet", "_delta_log/0.json", f"{PLACE} is a Delta table"),
        ("b/c/a.parquet", "b/_delta_log/0.json", f"{PLACE}/b is a Delta table"),
        ("b/data/a.parquet", "b/metadata/1-5f.metadata.json", f"{PLACE}/b is an Iceberg table"),
        ("b/x=1/a.parquet", "b/.hoodie/hoodie.properties", f"{PLACE}/b is a Hudi table"),
    ],
)
def test_a_file_below_what_marks_a_table_is_of_that_table(file: str, mark: str, said: str) -> None:
    assert str(table_among(PLACE, [file], [file, mark])).startswith(f"{said}. ")


@pytest.mark.parametrize("file", ["a.parquet", "bb/a.parquet", "metadata/a.parquet"])
def test_files_beside_a_table_are_of_none(file: str) -> None:
    assert table_among(PLACE, [file], [file, "b/a.parquet", "b/_delta_log/0.json", "metadata/a.json"]) is None
