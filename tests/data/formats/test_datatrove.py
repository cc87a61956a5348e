"""Tokens of datatrove: documents by the ends that its index names, with loss where its marks say, and faults in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.config.sources import Source
from lorif_assets.data.examples import sort_out
from lorif_assets.data.shards import list_shards, passed_over_notice, read_shard, survey
from lorif_assets.errors import SourceError
from lorif_assets.freshness.surroundings import look_around
from tests.hub_stand_in import HubStandIn
from tests.token_stores import datatrove_files

DOCUMENTS = [[5, 6, 7], [8], [60_000, 2]]
MARKS = [[0, 1, 1], [1], [1, 0]]


def stored(base: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (base / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (base / "data" / name).write_bytes(content)


def source(rows_per_shard: int = 2, path: str = "data") -> Source:
    return Source(name="web", path=path, rows_per_shard=rows_per_shard)


def read(of: Source, base: Path) -> list[dict[str, Any]]:
    shards = [sort_out(read_shard(of, piece, base), of.columns, piece.shard) for piece in list_shards(of, base)]
    return [row for shard in shards for row in shard.examples.to_pylist()]


@pytest.mark.parametrize("kind", ["u2", "u4"])
@pytest.mark.parametrize("rows_per_shard", [1, 2, 3])
def test_each_document_is_an_example_by_the_number_of_its_tokens_bytes(
    tmp_path: Path, kind: str, rows_per_shard: int
) -> None:
    stored(tmp_path, datatrove_files("00000_shuffled.ds", DOCUMENTS, kind))
    found = read(source(rows_per_shard), tmp_path)
    assert [row["input_ids"] for row in found] == DOCUMENTS
    assert [row["example_id"] for row in found] == [f"web-00000_shuffled/{k}" for k in range(3)]
    assert passed_over_notice(source(), tmp_path) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=8), st.integers(1, 4))
def test_wherever_a_file_is_cut_the_documents_are_those_of_the_index(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], rows_per_shard: int
) -> None:
    folder = tmp_path_factory.mktemp("store")
    stored(folder, datatrove_files("a.ds", documents))
    of = source(rows_per_shard, "data/a.ds")
    found = [
        values["input_ids"] for piece in list_shards(of, folder) for _, values in read_shard(of, piece, folder).rows
    ]
    assert found == documents


@pytest.mark.parametrize("path", ["data", "data/*.ds", "data/a.ds", "data/a.ds.loss"])
def test_tokens_without_a_mark_carry_no_loss(tmp_path: Path, path: str) -> None:
    stored(tmp_path, datatrove_files("a.ds", DOCUMENTS, marks=MARKS))
    found = read(source(2, path), tmp_path)
    assert [row["input_ids"] for row in found] == DOCUMENTS
    assert [row["labels"] for row in found] == [[-100, 6, 7], [8], [60_000, -100]]


@pytest.mark.parametrize("path", ["data", "data/**/*.ds"])
def test_marks_beside_a_file_rename_none_of_its_shards_and_no_document(tmp_path: Path, path: str) -> None:
    stored(tmp_path, datatrove_files("en/a.ds", DOCUMENTS))
    before = [row["example_id"] for row in read(source(2, path), tmp_path)]
    stored(tmp_path, datatrove_files("en/a.ds", DOCUMENTS, marks=MARKS))
    after = read(source(2, path), tmp_path)
    assert [row["example_id"] for row in after] == before
    assert after[0]["labels"] == [-100, 6, 7]


def test_first_settings_name_tokens_and_their_marks_as_one_source(tmp_path: Path) -> None:
    for name, content in datatrove_files("a.ds", DOCUMENTS, marks=MARKS).items():
        (tmp_path / name).write_bytes(content)
    assert [one.source.path for one in look_around(tmp_path).sources] == ["a.ds.loss"]


@pytest.mark.parametrize("path", ["hf://datasets/org/name/c", "hf://datasets/org/name/c/*.ds"])
def test_on_the_hub_marks_are_followed_too(hub: HubStandIn, tmp_path: Path, path: str) -> None:
    files = datatrove_files("a.ds", DOCUMENTS, marks=MARKS)
    hub.dataset("org/name").commit({f"c/{name}": content for name, content in files.items()})
    assert [row["labels"] for row in read(source(2, path), tmp_path)] == [[-100, 6, 7], [8], [60_000, -100]]


def test_on_the_hub_tokens_without_their_index_are_named(hub: HubStandIn, tmp_path: Path) -> None:
    hub.dataset("org/name").commit({"c/a.ds": bytes(12)})
    with pytest.raises(
        SourceError, match=r"c/a\.ds cannot be read without a\.ds\.index, which is not beside it: bring"
    ):
        list_shards(source(2, "hf://datasets/org/name/c"), tmp_path)


def test_new_marks_are_a_new_version_of_the_shards(tmp_path: Path) -> None:
    stored(tmp_path, datatrove_files("a.ds", DOCUMENTS, marks=MARKS))
    before = [piece.version for piece in list_shards(source(), tmp_path)]
    stored(tmp_path, {"a.ds.loss": bytes(6)})
    after = [piece.version for piece in list_shards(source(), tmp_path)]
    assert all(one != other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a.ds.index": b"1234567"}, "its index has 7 bytes, which are no whole number of ends"),
        ({"a.ds": bytes(11)}, "its index ends with token 6, and its 11 bytes are as many of no type"),
        ({"a.ds.loss": bytes(5)}, "it has 5 marks of loss for 6 tokens"),
    ],
)
def test_files_that_are_not_of_one_another_are_refused(
    tmp_path: Path, changed: Mapping[str, bytes], message: str
) -> None:
    stored(tmp_path, {**datatrove_files("a.ds", DOCUMENTS), **changed})
    (piece,) = survey([source()], tmp_path).shards
    assert f"cannot be read as tokens of datatrove: {message}. Check that it and the files of its name" in piece.fault


def test_tokens_without_their_index_are_named(tmp_path: Path) -> None:
    stored(tmp_path, {"a.ds": bytes(12)})
    with pytest.raises(
        SourceError, match=r"data/a\.ds cannot be read without a\.ds\.index, which is not beside it: bring"
    ):
        list_shards(source(), tmp_path)


def test_a_document_that_ends_before_it_begins_is_set_aside(tmp_path: Path) -> None:
    files = datatrove_files("a.ds", DOCUMENTS)
    ends = b"".join(end.to_bytes(8, "little") for end in (3, 1, 6))
    stored(tmp_path, {**files, "a.ds.index": ends})
    (piece,) = list_shards(source(3), tmp_path)
    raw = read_shard(source(3), piece, tmp_path)
    assert [values["input_ids"] for _, values in raw.rows] == [DOCUMENTS[0]]
    assert [one.reason for one in raw.malformed] == [
        "document 1: tokens 3 to 1 of 6, or of others behind one",
        # It would begin among those of the first.
        "document 2: tokens 1 to 6 of 6, or of others behind one",
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 5, 6, 999]), max_size=6), st.integers(1, 7))
def test_which_documents_are_sound_does_not_depend_on_the_size_of_shards(
    tmp_path_factory: pytest.TempPathFactory, wrong: list[int], rows_per_shard: int
) -> None:
    folder = tmp_path_factory.mktemp("store")
    index = b"".join(end.to_bytes(8, "little") for end in (*wrong, 6))
    stored(folder, {**datatrove_files("a.ds", DOCUMENTS), "a.ds.index": index})

    def documents(rows: int) -> dict[str, list[int]]:
        of = source(rows)
        shards = [read_shard(of, piece, folder) for piece in list_shards(of, folder)]
        return {values["document"]: values["input_ids"] for raw in shards for _, values in raw.rows}

    whole = documents(7)
    assert documents(rows_per_shard) == whole
    assert sum(map(len, whole.values())) <= 6, "no token is of two documents"
