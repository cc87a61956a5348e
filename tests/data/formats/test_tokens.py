"""Flat streams of tokens: documents end with the token that the settings name, and types of numbers are never guessed."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import Source, SourceFormat, TokenType
from lorif_assets.data.examples import sort_out
from lorif_assets.data.formats import tokens
from lorif_assets.data.shards import list_shards, read_shard, survey
from lorif_assets.errors import SourceError

END = 50_256
DOCUMENTS = [[5, 6, 7], [8, 9], [1, 2, 3, 4]]


def stream(documents: Sequence[Sequence[int]], kind: str = "uint16") -> bytes:
    return np.array([token for document in documents for token in (*document, END)], kind).tobytes()


def with_numpy_header(documents: Sequence[Sequence[int]], kind: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.frombuffer(stream(documents, kind), kind))
    return file.getvalue()


def with_llm_c_header(documents: Sequence[Sequence[int]], kind: str) -> bytes:
    content = stream(documents, kind)
    header = np.zeros(256, np.int32)
    header[:3] = {"uint16": (20_240_520, 1), "uint32": (20_240_801, 7)}[kind] + (
        len(content) // np.dtype(kind).itemsize,
    )
    return header.tobytes() + content


def source(token_type: TokenType | None = None, rows_per_shard: int = 2, **changed: Any) -> Source:
    values = {"name": "web", "path": "data", "format": "tokens", "document_end": END, **changed}
    return Source(token_type=token_type, rows_per_shard=rows_per_shard, **values)


def stored(base: Path, content: bytes, name: str = "train.bin") -> Path:
    (base / "data").mkdir(exist_ok=True)
    (base / "data" / name).write_bytes(content)
    return base / "data" / name


def read(of: Source, base: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for piece in list_shards(of, base):
        shard = sort_out(read_shard(of, piece, base), of.columns, piece.shard)
        assert shard.examples.num_rows == piece.rows
        found |= dict(
            zip(shard.examples["example_id"].to_pylist(), shard.examples["input_ids"].to_pylist(), strict=True)
        )
    return found


EXPECTED = {f"web-train/{k}": [*document, END] for k, document in enumerate(DOCUMENTS)}


@pytest.mark.parametrize("token_type", ["uint16", "uint32", "int32", "int64"])
@pytest.mark.parametrize("name", ["train.bin", "train.npy"])
def test_documents_of_a_stream_without_a_header_are_read_by_the_type_of_the_settings(
    tmp_path: Path, token_type: TokenType, name: str
) -> None:
    stored(tmp_path, stream(DOCUMENTS, token_type), name)
    for rows_per_shard in (1, 2, 3):
        assert read(source(token_type, rows_per_shard), tmp_path) == EXPECTED


@pytest.mark.parametrize("kind", ["uint16", "uint32", ">u2", "int64"])
def test_a_header_of_numpy_says_the_type(tmp_path: Path, kind: str) -> None:
    stored(tmp_path, with_numpy_header(DOCUMENTS, kind), "train.npy")
    assert read(source(), tmp_path) == EXPECTED


@pytest.mark.parametrize("kind", ["uint16", "uint32"])
def test_a_header_of_llm_c_says_the_type(tmp_path: Path, kind: str) -> None:
    stored(tmp_path, with_llm_c_header(DOCUMENTS, kind))
    assert read(source(), tmp_path) == EXPECTED


def test_ends_with_nothing_before_them_are_no_documents_and_a_tail_is_one(tmp_path: Path) -> None:
    stored(tmp_path, np.array([END, END, 5, 6, END, END, 7, END, 8, 9], np.uint16).tobytes())
    assert list(read(source("uint16"), tmp_path).values()) == [[5, 6, END], [7, END], [8, 9]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 7))
def test_wherever_a_file_is_cut_the_documents_are_those_between_its_ends(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], rows_per_shard: int, at_a_time: int
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    stored(folder, np.array([*ids, 0], np.uint16).tobytes())
    text = "".join("." if token == 0 else str(token) for token in [*ids, 0])
    expected = [[*map(int, part), 0] for part in text.split(".") if part]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_AT_A_TIME", at_a_time)
        of = source("uint16", rows_per_shard, document_end=0)
        pieces = survey([of], folder).shards if expected else ()
        found = [values["input_ids"] for piece in pieces for _, values in read_shard(of, piece, folder).rows]
    assert found == expected
    slices = [expected[k : k + rows_per_shard] for k in range(0, len(expected), rows_per_shard)]
    assert [piece.rows for piece in pieces] == [len(one) for one in slices]


def test_a_stream_that_grew_at_its_end_changes_its_last_shards_alone(tmp_path: Path) -> None:
    def hashes() -> dict[str, str]:
        of = source("uint16")
        pieces = {piece.shard: read_shard(of, piece, tmp_path) for piece in list_shards(of, tmp_path)}
        return {name: sort_out(raw, of.columns, name).shard_hash for name, raw in pieces.items()}

    stored(tmp_path, stream(DOCUMENTS))
    before = hashes()
    stored(tmp_path, stream([*DOCUMENTS, [7, 7], [8, 8]]))
    after = hashes()
    assert [name for name in after if before.get(name) != after[name]] == ["web-train-00001", "web-train-00002"]


@pytest.mark.parametrize(
    ("content", "token_type", "why"),
    [
        (stream(DOCUMENTS), None, "it does not say of which type its numbers are: set `token_type`"),
        (stream(DOCUMENTS), "uint32", "50256 stands nowhere in its 6 uint32"),
        (stream(DOCUMENTS)[:-1], "uint16", "it has 23 bytes, which are no whole number of uint16"),
        (stream(DOCUMENTS * 200, "uint32"), "uint16", "every other of its uint16 is as good as 0"),
        (stream(DOCUMENTS * 200, "int64"), "int32", "every other of its int32 is as good as 0"),
        (with_numpy_header(DOCUMENTS, "uint16"), "uint32", "it says itself that it has uint16: leave `token_type` out"),
        (with_numpy_header(DOCUMENTS, "float32"), None, "it is an array of 1 dimensions of float32"),
        (with_numpy_header(DOCUMENTS, "uint16") + b"xx", None, "and claims 12 tokens of uint16"),
        (with_numpy_header(DOCUMENTS, "uint16")[:-2], None, "cannot be read as a stream of tokens"),
        (with_llm_c_header(DOCUMENTS, "uint16")[:-2], None, "it has 1,046 bytes, and claims 12 tokens of uint16"),
        (np.array([20_240_520, 9, 1] + [0] * 253, np.int32).tobytes(), None, "it is of llm.c's version 9"),
        (np.array([20_240_520, 1, -1] + [0] * 253, np.int32).tobytes(), None, "claims -1 tokens"),
    ],
)
def test_a_stream_of_another_type_or_that_is_not_whole_is_refused(
    tmp_path: Path, content: bytes, token_type: TokenType | None, why: str
) -> None:
    stored(tmp_path, content)
    with pytest.raises(SourceError, match=why):
        list_shards(source(token_type), tmp_path)


@pytest.mark.parametrize("token_type", ["uint16", "uint32", "int64"])
def test_a_stream_of_few_different_tokens_is_read(tmp_path: Path, token_type: TokenType) -> None:
    ids = np.random.default_rng(0).integers(0, 6, 10_000)
    stored(tmp_path, ids.astype(token_type).tobytes())
    pieces = list_shards(source(token_type, 10_000, document_end=0), tmp_path)
    assert sum(piece.rows for piece in pieces) > 1_000
    halves: TokenType = "uint16" if token_type == "uint32" else "int32"
    if token_type != "uint16":
        with pytest.raises(SourceError, match="every other of its"):
            list_shards(source(halves, 10_000, document_end=0), tmp_path)


@pytest.mark.parametrize("ending", [b"(12", b"(12,), '''", b"(99999999999999999999,), }"])
def test_a_damaged_header_of_numpy_is_said_to_be_one(tmp_path: Path, ending: bytes) -> None:
    content = with_numpy_header(DOCUMENTS, "uint16")
    begin, end = content.index(b"(12,)"), content.index(b"\n")
    stored(tmp_path, content[:begin] + ending.ljust(end - begin) + content[end:])
    with pytest.raises(SourceError, match="its header cannot be read"):
        list_shards(source(), tmp_path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.array([pickle.dumps], object), allow_pickle=True)
    stored(tmp_path, file.getvalue(), "train.npy")
    with pytest.raises(SourceError, match="cannot be read as a stream of tokens"):
        list_shards(source(), tmp_path)


def test_a_document_without_an_end_takes_no_more_memory_than_a_shard_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_AT_A_TIME", 1 << 12)
    stored(tmp_path, np.array([1, END] + [7] * (1 << 20), np.uint16).tobytes())
    of = source("uint16").model_copy(update={"limits": ReadLimits(shard_mib=1)})
    (piece,) = list_shards(of, tmp_path)
    with pytest.raises(SourceError, match=r"limits.shard_mib"):
        read_shard(of, piece, tmp_path)


def test_only_the_settings_say_that_a_file_is_a_stream(tmp_path: Path) -> None:
    stored(tmp_path, stream(DOCUMENTS))
    (tmp_path / "data/a.txt").write_text("words")
    (piece,) = list_shards(Source(name="s", path="data"), tmp_path)
    assert piece.kind == SourceFormat.TXT
    with pytest.raises(ValidationError, match="go together"):
        Source(name="s", path="data", format=SourceFormat.TOKENS)
    with pytest.raises(ValidationError, match="go together"):
        Source(name="s", path="data", document_end=0)
