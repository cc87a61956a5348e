"""Formats: one reader for each, found by its name."""

import pytest

from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.formats import readers
from lorif_assets.data.formats.reader import version_of


def test_every_format_but_auto_has_a_reader_of_files_or_of_directories() -> None:
    assert set(readers()) == set(SourceFormat) - {SourceFormat.AUTO}
    for kind, reader in readers().items():
        assert bool(reader.suffixes) != bool(reader.marks), kind


def test_a_suffix_or_a_mark_says_one_format() -> None:
    said = [name for reader in readers().values() for name in (*reader.suffixes, reader.marks)]
    assert len(said) - said.count(()) == len({*said} - {()})


@pytest.mark.parametrize(
    ("source", "version"),
    [
        (Source(name="docs", path="data"), "1-2 7966d244c822511dae106e84c1de1f4c"),
        (Source(name="docs", path="data", format="jsonl", rows_per_shard=7), "1-2 01e37cdcdc372e32777bba98be23563e"),
    ],
)
def test_the_versions_of_stored_shards_stay(source: Source, version: str) -> None:
    """Otherwise every shard of every lake would be out of date."""
    assert version_of("1-2", source) == version
