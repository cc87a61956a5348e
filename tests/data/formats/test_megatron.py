"""Megatron's indexed data sets: a document is an example, and a file that is not whole is refused in a sentence."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.examples import sort_out
from lorif_assets.data.shards import list_shards, passed_over_notice, read_shard, survey
from lorif_assets.data.source_rows import source_rows
from lorif_assets.errors import SourceError
from lorif_assets.freshness.surroundings import look_around
from tests.hub_stand_in import HubStandIn
from tests.token_stores import CODES, indexed_files

DOCUMENTS = [[5, 6, 7], [8, 9], [1, 2, 3, 4]]


def indexed(folder: Path, documents: Sequence[Sequence[Sequence[int]]], kind: str = "u2") -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in indexed_files("corpus", documents, kind).items():
        (folder / name).write_bytes(content)
    return folder / "corpus.idx"


def single(documents: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    return [[document] for document in documents]


def source(path: str = "data", rows_per_shard: int = 2) -> Source:
    return Source(name="tokens", path=path, rows_per_shard=rows_per_shard)


def read(of: Source, base: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for piece in list_shards(of, base):
        shard = sort_out(read_shard(of, piece, base), of.columns, piece.shard)
        assert shard.rejected.num_rows == 0
        found |= dict(
            zip(shard.examples["example_id"].to_pylist(), shard.examples["input_ids"].to_pylist(), strict=True)
        )
    return found


@pytest.mark.parametrize("kind", CODES)
def test_each_document_is_an_example_that_is_named_by_its_number(tmp_path: Path, kind: str) -> None:
    indexed(tmp_path / "data", single(DOCUMENTS), kind)
    expected = {f"tokens-corpus/{k}": document for k, document in enumerate(DOCUMENTS)}
    for rows_per_shard in (1, 2, 3):
        assert read(source(rows_per_shard=rows_per_shard), tmp_path) == expected


def test_a_long_document_is_as_many_examples_as_the_settings_make_of_it(tmp_path: Path) -> None:
    indexed(tmp_path / "data", single(DOCUMENTS))
    of = source().model_copy(update={"tokens_per_example": 2})
    assert read(of, tmp_path) == {
        "tokens-corpus/0#1": [5, 6],
        "tokens-corpus/1": [8, 9],
        "tokens-corpus/2#1": [1, 2],
        "tokens-corpus/2#2": [3, 4],
    }


def test_a_document_of_several_sequences_is_one_example(tmp_path: Path) -> None:
    indexed(tmp_path / "data", [[[5, 6], [7]], [[8]], [[1, 2], [3], [4]]])
    assert read(source("data/corpus.idx"), tmp_path) == {
        "tokens/0": [5, 6, 7],
        "tokens/1": [8],
        "tokens/2": [1, 2, 3, 4],
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 65_535), max_size=4), min_size=1, max_size=3), min_size=1, max_size=6))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]]) -> None:
    folder = tmp_path_factory.mktemp("store")
    indexed(folder / "data", documents)
    of = source()
    pieces = list_shards(of, folder)
    rows = [values["input_ids"] for piece in pieces for _, values in read_shard(of, piece, folder).rows]
    assert rows == [[token for sequence in document for token in sequence] for document in documents]


def test_a_document_that_is_added_changes_no_other(tmp_path: Path) -> None:
    def hashes() -> dict[str, str]:
        pieces = {piece.shard: read_shard(source(), piece, tmp_path) for piece in list_shards(source(), tmp_path)}
        return {name: sort_out(raw, source().columns, name).shard_hash for name, raw in pieces.items()}

    indexed(tmp_path / "data", single(DOCUMENTS))
    (first, *_), before = list_shards(source(), tmp_path), hashes()
    indexed(tmp_path / "data", single([*DOCUMENTS, [9, 9], [8, 8]]))
    with pytest.raises(SourceError, match="has changed since its shards were listed"):
        read_shard(source(), first, tmp_path)
    after = hashes()
    assert [name for name in after if before.get(name) != after[name]] == ["tokens-corpus-00001", "tokens-corpus-00002"]


def test_tokens_that_are_written_again_make_another_version(tmp_path: Path) -> None:
    indexed(tmp_path / "data", single(DOCUMENTS))
    (before, _) = list_shards(source(), tmp_path)
    content = tmp_path / "data/corpus.bin"
    content.write_bytes(content.read_bytes()[::-1])
    (after, _) = list_shards(source(), tmp_path)
    assert before.version != after.version


def test_a_selection_holds_the_documents_under_their_ids(tmp_path: Path) -> None:
    indexed(tmp_path / "data", single(DOCUMENTS))
    piece, _ = list_shards(source(), tmp_path)
    shard_hash = sort_out(read_shard(source(), piece, tmp_path), source().columns, piece.shard).shard_hash
    rows = source_rows(source(), piece, tmp_path, shard_hash, [1])
    assert rows.table().to_pylist() == [{"document": "tokens-corpus/1", "input_ids": [8, 9]}]


def test_a_store_is_found_by_its_beginning_and_its_tokens_are_no_stream(tmp_path: Path) -> None:
    indexed(tmp_path / "data", single(DOCUMENTS))
    found = look_around(tmp_path)
    (one,) = found.sources
    assert (one.source.path, one.columns, one.is_readable) == ("data/corpus.idx", ("document", "input_ids"), True)
    assert found.streams == {}
    assert passed_over_notice(source(), tmp_path) is None


def test_an_index_of_something_else_beside_rows_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "data/a.idx").write_bytes(b"\0\0\0\0")
    (piece,) = list_shards(source(), tmp_path)
    assert piece.kind == SourceFormat.JSONL


def test_the_tokens_alone_are_refused_with_the_path_to_give(tmp_path: Path) -> None:
    indexed(tmp_path / "data", single(DOCUMENTS))
    with pytest.raises(
        SourceError, match=r"holds the tokens of the documents that corpus\.idx names: give the path of that"
    ):
        list_shards(source("data/corpus.bin"), tmp_path)


def test_tokens_without_their_index_are_said_to_need_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/corpus.bin").write_bytes(indexed_files("corpus", [[[5, 6, 7]]])["corpus.bin"])
    with pytest.raises(
        SourceError,
        match=r"where Megatron wrote it, corpus.idx was written with it: give its path; where",
    ):
        list_shards(Source(name="tokens", path="data"), tmp_path)


def test_a_file_beside_an_index_of_something_else_is_not_taken_for_its_tokens(tmp_path: Path) -> None:
    indexed(tmp_path / "data", single(DOCUMENTS)).write_bytes(b"0 18")
    with pytest.raises(SourceError, match=r"may be a stream of token ids") as caught:
        list_shards(source("data/corpus.bin"), tmp_path)
    assert "corpus.idx" not in str(caught.value)


N = len(DOCUMENTS)
LENGTHS, STARTS, ENDS = 34, 34 + 4 * N, 34 + 12 * N


@pytest.mark.parametrize(
    ("position", "value", "why"),
    [
        (9, struct.pack("<Q", 2), "it is of version 2, and version 1 is read"),
        (17, b"\x07", "its tokens are of the type 7, which is no whole number"),
        (17, b"\x63", "its tokens are of the type 99, which is no whole number"),
        (18, struct.pack("<Q", 2**63), "ends of documents"),
        (18, struct.pack("<Q", 2), "would hold 2 sequences and 4 ends of documents"),
        (26, struct.pack("<Q", 0), "would hold 3 sequences and 0 ends of documents"),
        (ENDS + 8 * N, struct.pack("<q", 2), "its documents end with sequence 2 of 3"),
        (ENDS + 8 * N, struct.pack("<q", -1), "its documents end with sequence -1 of 3"),
    ],
)
def test_an_index_that_claims_what_is_not_there_is_refused(
    tmp_path: Path, position: int, value: bytes, why: str
) -> None:
    index = indexed(tmp_path / "data", single(DOCUMENTS))
    content = bytearray(index.read_bytes())
    content[position : position + len(value)] = value
    index.write_bytes(content)
    with pytest.raises(SourceError, match=why):
        list_shards(source(), tmp_path)


@pytest.mark.parametrize(
    ("position", "value", "why"),
    [
        (LENGTHS + 4, struct.pack("<i", -2), "document 1: its tokens would lie outside the 18 bytes of corpus.bin"),
        (LENGTHS + 4, struct.pack("<i", 2**31 - 1), "document 1: its tokens would lie outside"),
        (STARTS + 8, struct.pack("<q", -2), "document 1: its tokens would lie outside"),
        (STARTS + 8, struct.pack("<q", 2**63 - 1), "document 1: its tokens would lie outside"),
        (ENDS + 8, struct.pack("<q", 3), "document 1: sequences 3 to 2 of 3"),
        (ENDS + 8, struct.pack("<q", -1), "document 0: sequences 0 to -1 of 3"),
        (ENDS + 8, struct.pack("<q", 2**62), f"document 0: sequences 0 to {2**62} of 3"),
    ],
)
def test_a_document_whose_tokens_are_not_there_is_set_aside(
    tmp_path: Path, position: int, value: bytes, why: str
) -> None:
    index = indexed(tmp_path / "data", single(DOCUMENTS))
    content = bytearray(index.read_bytes())
    content[position : position + len(value)] = value
    index.write_bytes(content)
    (piece,) = list_shards(source(rows_per_shard=3), tmp_path)
    raw = read_shard(source(rows_per_shard=3), piece, tmp_path)
    assert [line.reason for line in raw.malformed if why in line.reason]
    assert len(raw.rows) + len(raw.malformed) == 3


@pytest.mark.parametrize("suffix", [".idx", ".bin"])
def test_a_store_that_was_cut_off_is_refused_or_set_aside(tmp_path: Path, suffix: str) -> None:
    indexed(tmp_path / "data", single(DOCUMENTS))
    file = tmp_path / f"data/corpus{suffix}"
    whole = file.read_bytes()
    for size in range(9 if suffix == ".idx" else 0, len(whole)):
        file.write_bytes(whole[:size])
        of = source(rows_per_shard=3)
        (piece,) = survey([of], tmp_path).shards
        if suffix == ".idx":
            assert "cannot be read as a Megatron index" in piece.fault
        else:
            raw = read_shard(of, piece, tmp_path)
            assert all(values["input_ids"] == DOCUMENTS[row] for row, values in raw.rows)
            assert raw.malformed


def test_a_store_without_its_tokens_or_of_several_kinds_of_content_is_refused(tmp_path: Path) -> None:
    index = indexed(tmp_path / "data", single(DOCUMENTS))
    index.write_bytes(index.read_bytes() + bytes(N))
    with pytest.raises(SourceError, match="its sequences have modes: it is of several kinds of content"):
        list_shards(source(), tmp_path)
    (tmp_path / "data/corpus.bin").unlink()
    with pytest.raises(
        SourceError, match=r"data/corpus.idx cannot be read without corpus.bin, which is not beside it: bring it there"
    ):
        list_shards(source(), tmp_path)


def test_documents_that_take_more_memory_than_a_shard_may_are_refused(tmp_path: Path) -> None:
    # Many documents of the same bytes take little of the disk.
    n, length = 300, 1_000
    lengths, starts, ends = np.full(n, length, "<i4"), np.zeros(n, "<i8"), np.arange(n + 1, dtype="<i8")
    (tmp_path / "data").mkdir()
    header = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, n, n + 1)
    (tmp_path / "data/corpus.idx").write_bytes(header + lengths.tobytes() + starts.tobytes() + ends.tobytes())
    (tmp_path / "data/corpus.bin").write_bytes(bytes(2 * length))
    of = source(rows_per_shard=n).model_copy(update={"limits": ReadLimits(shard_mib=1)})
    (piece,) = list_shards(of, tmp_path)
    with pytest.raises(SourceError, match=r"limits.shard_mib"):
        read_shard(of, piece, tmp_path)


def test_on_the_hub_the_tokens_come_with_their_index(hub: HubStandIn, tmp_path: Path) -> None:
    files = {f"data/{name}": content for name, content in indexed_files("corpus", single(DOCUMENTS)).items()}
    hub.dataset("org/name").commit({**files, "weights.bin": b"..."})
    of = source("hf://datasets/org/name")
    assert list(read(of, tmp_path).values()) == DOCUMENTS
    assert set(hub.downloads()) == {".gitattributes", *files}
    assert "weights.bin" in (notice := passed_over_notice(of, tmp_path) or "")
    assert "corpus" not in notice


def test_on_the_hub_an_index_of_something_else_beside_rows_is_no_data(hub: HubStandIn, tmp_path: Path) -> None:
    hub.dataset("org/name").commit({"rows.jsonl": b'{"text": "words"}\n', "rows.idx": b"0 18"})
    (piece,) = list_shards(source("hf://datasets/org/name"), tmp_path)
    assert (piece.kind, piece.rows) == (SourceFormat.JSONL, 1)
