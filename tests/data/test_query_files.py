"""Query sets: which files are one, and what they are called."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from lorif_assets.config.settings import Settings
from lorif_assets.data.query_files import query_files, query_source, source_version, survey_queries
from lorif_assets.data.shards import list_shards, read_source
from lorif_assets.errors import SourceError

ROW = '{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "queries").mkdir()
    return Settings(base=tmp_path)


def write(settings: Settings, *names: str) -> None:
    for name in names:
        (settings.base / "queries" / name).write_text(ROW)


def test_each_file_of_the_directory_is_a_query_set_named_after_it(settings: Settings) -> None:
    write(settings, "b.jsonl", "a.parquet", "c-2.v1.ndjson")
    assert list(query_files(settings)) == ["a", "b", "c-2.v1"]


def test_one_file_is_one_query_set(settings: Settings) -> None:
    write(settings, "a.jsonl", "b.jsonl")
    one = Settings(base=settings.base, queries={"path": "queries/b.jsonl"})
    assert query_files(one) == {"b": settings.base / "queries/b.jsonl"}


def test_pipes_are_no_query_sets_and_are_told(settings: Settings) -> None:
    write(settings, "a.jsonl")
    os.mkfifo(settings.base / "queries/b.jsonl")
    assert survey_queries(settings).passed_over == ("b.jsonl",)
    piped = Settings(base=settings.base, queries={"path": "queries/b.jsonl"})
    with pytest.raises(SourceError, match=r"b\.jsonl is a pipe, a socket or a device; set `queries.path`"):
        survey_queries(piped)


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "a Delta table"),
        ("metadata/00001-5f.metadata.json", "an Iceberg table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
    ],
)
@pytest.mark.parametrize("path", ["queries", "queries/part-0.parquet"])
def test_files_of_a_table_are_no_query_sets(settings: Settings, mark: str, kind: str, path: str) -> None:
    (settings.base / "queries" / mark).parent.mkdir()
    write(settings, "part-0.parquet", mark)
    of_a_table = Settings(base=settings.base, queries={"path": path})
    with pytest.raises(
        SourceError, match=rf"within {settings.base / 'queries'}, {kind}: .* set `queries.path` to that"
    ):
        survey_queries(of_a_table)


def test_an_empty_directory_holds_no_query_set(settings: Settings) -> None:
    assert query_files(settings) == {}


def test_hidden_files_other_files_and_folders_are_no_query_sets(settings: Settings) -> None:
    write(settings, "a.jsonl", ".a.jsonl.swp", ".b.jsonl", "_c.jsonl", "README.md", "d.csv")
    (settings.base / "queries/e.jsonl").mkdir()
    assert list(query_files(settings)) == ["a"]


def test_compressed_files_and_names_in_capitals_are_query_sets(settings: Settings) -> None:
    write(settings, "a.JSONL", "b.Parquet")
    (settings.base / "queries/c.jsonl.gz").write_bytes(gzip.compress(ROW.encode()))
    (settings.base / "queries/d.jsonl.zst").write_bytes(pa.compress(ROW.encode(), codec="zstd", asbytes=True))
    assert list(query_files(settings)) == ["a", "b", "c.jsonl", "d.jsonl"]
    for name in ("a", "c.jsonl", "d.jsonl"):
        assert read_source(query_source(settings, name), settings.base).rows == ((0, json.loads(ROW)),)


def test_json_and_csv_files_are_query_sets_where_nothing_else_is(settings: Settings) -> None:
    write(settings, "README.txt")
    (settings.base / "queries/a.json").write_text(f"[{ROW}, {ROW}]")
    (settings.base / "queries/b.csv").write_text("prompt,completion\na,b\n")
    assert list(query_files(settings)) == ["a", "b"]
    assert len(read_source(query_source(settings, "a"), settings.base).rows) == 2
    assert read_source(query_source(settings, "b"), settings.base).rows == ((0, json.loads(ROW)),)
    write(settings, "c.jsonl")
    assert list(query_files(settings)) == ["c"]


def test_a_path_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError,
        match=rf"{tmp_path}/queries does not exist; put a file of queries there, or correct `queries\.path`",
    ):
        query_files(Settings(base=tmp_path))


def test_two_files_of_one_name_are_refused(settings: Settings) -> None:
    write(settings, "a.jsonl", "a.parquet")
    with pytest.raises(SourceError, match="two query files named 'a'"):
        query_files(settings)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my questions", "my_questions"),
        ("a|b", "a_b"),
        ("été", "été"),
        ("質問", "質問"),
        ("हिन्दी", "हिन्दी"),
        ("it's", "it_s"),
        ("-1", "_1"),
        ("½?", "__"),
    ],
)
def test_a_query_set_keeps_what_of_its_files_name_a_partition_can_have(
    settings: Settings, file: str, name: str
) -> None:
    write(settings, f"{file}.jsonl")
    assert list(query_files(settings)) == [name]
    assert read_source(query_source(settings, name), settings.base).rows == ((0, json.loads(ROW)),)


def test_files_whose_names_become_one_are_still_query_sets_of_their_own(settings: Settings) -> None:
    write(settings, "a b.jsonl", "a_b.jsonl", "a_b.JSONL", "a?b.jsonl")
    found = query_files(settings)
    assert found["a_b"].name == "a_b.jsonl"
    assert len(found) == 4
    assert {query_source(settings, name).path for name in found} == {f"queries/{file.name}" for file in found.values()}


def test_asking_for_another_query_set_tells_which_there_are(settings: Settings) -> None:
    write(settings, "a.jsonl", "b.jsonl")
    with pytest.raises(SourceError, match=r"no query set 'c': .*queries has a, b"):
        query_source(settings, "c")


def test_a_query_sets_version_changes_with_its_file_and_not_with_the_projects_place(
    settings: Settings, tmp_path: Path
) -> None:
    import shutil

    write(settings, "a.jsonl")
    before = source_version(query_source(settings, "a"), settings)
    moved = Settings(base=Path(shutil.copytree(settings.base, tmp_path.parent / f"{tmp_path.name}-moved")))
    assert source_version(query_source(moved, "a"), moved) == before
    (settings.base / "queries/a.jsonl").write_text(ROW + ROW)
    assert source_version(query_source(settings, "a"), settings) != before


def test_a_query_set_is_read_again_once_its_file_may_name_code_or_may_no_more(settings: Settings) -> None:
    write(settings, "a.jsonl")
    trusting = settings.model_copy(update={"queries": settings.queries.model_copy(update={"allow_scalars": True})})
    before = source_version(query_source(settings, "a"), settings)
    assert before == " ".join(piece.version for piece in list_shards(query_source(settings, "a"), settings.base))
    assert source_version(query_source(trusting, "a"), trusting) != before


def test_what_lies_beside_query_files_and_is_none_is_known(settings: Settings) -> None:
    write(settings, "a.jsonl", ".a.jsonl.swp", "README.md", "d.csv")
    (settings.base / "queries/e.jsonl").mkdir()
    (settings.base / "queries/f.jsonl").symlink_to("gone")
    assert survey_queries(settings).passed_over == ("README.md", "d.csv", "e.jsonl", "f.jsonl")
