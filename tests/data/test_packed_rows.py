"""Sequences that trainers packed in one row of token ids are examples of their own; contradictory marks set the row aside."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from lorif_assets.api.rows import normalised_rows
from lorif_assets.cli.doctor import diagnose
from lorif_assets.config.sources import Columns, Source, TokenType
from lorif_assets.data.content.query_objectives import NO_SCALARS
from lorif_assets.data.content.token_masks import packed_sequences
from lorif_assets.data.examples import NormalisedShard, sort_out
from lorif_assets.data.formats.reader import MalformedRow, RawShard
from lorif_assets.data.packed_rows import unpacked
from lorif_assets.data.preview import first_rows
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.data.source_rows import SourceRows, source_rows
from lorif_assets.data.written_rows import write_parquet
from lorif_assets.errors import SourceError
from lorif_assets.freshness.surroundings import look_around
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from tests.conftest import TinyProject

IDS = [5, 6, 7, 8, 9]


def raw(*rows: dict[str, Any], **columns: Any) -> RawShard:
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return unpacked(
        RawShard("a.jsonl", names, tuple(enumerate(rows)), file="a.jsonl", first_row=10), Columns(**columns)
    )


def shard(*rows: dict[str, Any], **columns: Any) -> NormalisedShard:
    return sort_out(raw(*rows, **columns), Columns(**columns), "s-00000")


def tokens(*rows: dict[str, Any], **columns: Any) -> dict[str, list[int]]:
    found = shard(*rows, **columns)
    assert found.rejected.num_rows == 0
    return {example["example_id"]: example["input_ids"] for example in found.examples.to_pylist()}


def reason(row: dict[str, Any], **columns: Any) -> str:
    (why,) = shard(row, **columns).rejected["reason"].to_pylist()
    return str(why)


@pytest.mark.parametrize(
    "packing",
    [
        {"position_ids": [0, 1, 0, 1, 2]},
        {"position_ids": [0.0, 1.0, 0.0, 1.0, 2.0]},
        {"seq_lengths": [2, 3]},
        {"seq_lengths": [2.0, 3.0]},
        {"attention_mask": [1, 1, 2, 2, 2]},
        {"cu_seqlens": [0, 2, 5]},
        {"cu_seqlens": [0, 2, 5, 5]},
        {"cu_seq_lens_q": [0, 2, 5]},
        {"seq_idx": [0, 0, 1, 1, 1]},
        {"segment_ids": [1, 1, 2, 2, 2]},
        {"document_ids": [88, 88, 7, 7, 7]},
        {"position_ids": [0, 1, 0, 1, 2], "seq_lengths": [2, 3], "attention_mask": [1] * 5},
    ],
)
def test_each_sequence_of_a_packed_row_is_an_example_of_its_own(packing: dict[str, list[int]]) -> None:
    assert tokens({"input_ids": IDS, **packing}) == {"s-00000/000000#1": [5, 6], "s-00000/000000#2": [7, 8, 9]}


@pytest.mark.parametrize(
    "packing",
    [
        {"position_ids": [0, 1, 0, 1, 0]},
        {"position_ids": [0, 1, 0, 1, 2], "attention_mask": [1, 1, 1, 1, 0]},
        {"seq_lengths": [2, 2], "attention_mask": [1, 1, 1, 1, 0]},
        {"attention_mask": [1, 1, 2, 2, 0]},
        {"sequence_id": [0, 0, 1, 1, -1]},
        {"segment_ids": [1, 1, 2, 2, 0]},
        {"seq_lengths": [2, 2, 1]},
        {"seq_idx": [0, 0, 1, 1, 1], "attention_mask": [1, 1, 1, 1, 0]},
        {"seq_idx": [0, 0, 1, 1, 0], "attention_mask": [1, 1, 1, 1, 0]},
    ],
)
def test_padding_and_sequences_of_one_token_are_in_no_example(packing: dict[str, list[int]]) -> None:
    assert list(tokens({"input_ids": IDS, **packing}).values()) == [[5, 6], [7, 8]]


def test_labels_and_masks_of_the_loss_are_those_of_the_sequence() -> None:
    row = {"input_ids": IDS, "labels": [-100, 6, 7, -100, 9], "loss_mask": [1, 1, 0, 1, 1], "seq_lengths": [2, 3]}
    found = shard(row).examples
    assert found["labels"].to_pylist() == [[-100, 6], [-100, -100, 9]]
    assert set(found["metadata"].to_pylist()) == {"{}"}


def test_a_sequence_has_the_id_and_the_metadata_of_its_row() -> None:
    rows = (
        {"id": 7, "topic": "foxes", "input_ids": IDS, "seq_lengths": [2, 3]},
        {"id": 8, "topic": "x", "input_ids": IDS},
    )
    found = shard(*rows, id="id").examples
    assert found["example_id"].to_pylist() == ["7#1", "7#2", "8"]
    assert list(map(json.loads, found["metadata"].to_pylist())) == [
        {"topic": "foxes"},
        {"topic": "foxes"},
        {"topic": "x"},
    ]


def test_examples_are_numbered_through_and_their_place_is_that_of_their_row() -> None:
    packed = {"input_ids": IDS, "seq_lengths": [2, 3]}
    found = raw(packed, {"input_ids": IDS}, {"input_ids": None}, packed)
    assert sort_out(found, Columns(), "s-00000").examples["row"].to_pylist() == [0, 1, 2, 4, 5]
    assert [found.place(row) for row in (1, 2, 3, 4)] == [
        *("a.jsonl, row 10, sequence 2", "a.jsonl, row 11", "a.jsonl, row 12", "a.jsonl, row 13, sequence 1"),
    ]
    assert found.sequences_in_a_row == 1.5


def test_malformed_rows_keep_their_place_among_packed_ones() -> None:
    packed = {"input_ids": IDS, "seq_lengths": [2, 3]}
    found = RawShard("a.jsonl", tuple(packed), ((0, packed), (2, packed)), (MalformedRow(1, "broken", "{"),), file="a")
    (bad,) = sort_out(unpacked(found, Columns()), Columns(), "s-00000").rejected.to_pylist()
    assert (bad["example_id"], bad["row"], bad["reason"]) == ("s-00000/000001", 2, "broken")


def test_a_shard_without_packed_rows_is_read_as_ever() -> None:
    rows = RawShard("a", ("input_ids", "position_ids"), ((0, {"input_ids": IDS, "position_ids": [0, 1, 2, 3, 4]}),))
    assert unpacked(rows, Columns()) is rows


@pytest.mark.parametrize(
    "columns",
    [
        {"position_ids": [7, 8, 9, 10, 11]},
        {"position_ids": [0, 1, 2, 100, 101]},
        {"position_ids": [2, 3, 4, 1, 1]},
        {"seq_lengths": [5]},
        {"cu_seqlens": [0, 5]},
        {"segment_ids": [3, 3, 3, 3, 3]},
    ],
)
def test_a_row_of_one_sequence_keeps_its_id_and_all_of_its_tokens(columns: dict[str, list[int]]) -> None:
    assert tokens({"input_ids": IDS, **columns}) == {"s-00000/000000": IDS}


@pytest.mark.parametrize(
    ("packing", "why"),
    [
        (
            {"position_ids": [0, 1, 0, 1, 2], "seq_lengths": [3, 2]},
            "position_ids and seq_lengths contradict one another",
        ),
        (
            {"position_ids": [0, 1, 2, 3, 4], "seq_lengths": [3, 2]},
            "1 sequence of 5 tokens, by the other 2 sequences of 5",
        ),
        (
            {"position_ids": [7, 8, 0, 1, 2]},
            "position_ids are 7 where a sequence begins, at token 0, and not 0. Correct it or, where the model saw the row as",
        ),
        ({"position_ids": [0, 1, 0, 1]}, "position_ids has 4 entries and input_ids 5"),
        ({"seq_lengths": [2, 2]}, "seq_lengths ends no sequences of the 5 tokens that the row has without padding"),
        ({"seq_lengths": [1, 1, 1, 1, 1]}, "seq_lengths shows sequences of one token alone, which nothing predicts"),
        ({"seq_lengths": [7, -2]}, "seq_lengths ends no sequences of the 5 tokens"),
        ({"cu_seqlens": [0, 2, 9]}, "cu_seqlens ends no sequences of the 5 tokens"),
        ({"cu_seqlens": [1, 2, 5]}, "cu_seqlens ends no sequences of the 5 tokens"),
        ({"cu_seqlens": [0, 4, 2, 5]}, "cu_seqlens ends no sequences of the 5 tokens"),
        ({"seq_idx": [0, 0, 1, 1, 0]}, "seq_idx has the number 0 for tokens that do not lie together"),
        ({"attention_mask": [1, 1, 2, 2, 1]}, "attention_mask has the number 1 for tokens that do not lie together"),
        ({"seq_lengths": [2, 3], "attention_mask": [1, 0, 1, 1, 1]}, "attention_mask hides tokens"),
        ({"seq_lengths": [2, 3], "labels": [5, 6]}, "labels has 2 entries and input_ids 5"),
    ],
)
def test_marks_that_contradict_one_another_or_the_tokens_set_the_row_aside(packing: dict[str, Any], why: str) -> None:
    assert why in reason({"input_ids": IDS, **packing})


def cut(row: dict[str, Any], most_tokens: int, **columns: Any) -> NormalisedShard:
    names = tuple(row)
    whole = RawShard("a.jsonl", names, ((0, row),), file="a.jsonl", first_row=10)
    return sort_out(unpacked(whole, Columns(**columns), most_tokens), Columns(**columns), "s-00000")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, {"s-00000/000000#1": [5, 6], "s-00000/000000#2": [7, 8]}),
        ({"id": "doc"}, {"doc#1": [5, 6], "doc#2": [7, 8]}),
        ({"attention_mask": [1, 1, 1, 1, 0]}, {"s-00000/000000#1": [5, 6], "s-00000/000000#2": [7, 8]}),
        ({"seq_lengths": [3, 2]}, {"s-00000/000000#1": [5, 6], "s-00000/000000#2": [8, 9]}),
    ],
)
def test_a_row_of_more_tokens_than_an_example_may_have_is_several(
    row: dict[str, Any], expected: dict[str, list[int]]
) -> None:
    found = cut({"input_ids": IDS, **row}, 2, id="id" if "id" in row else None)
    assert found.rejected.num_rows == 0
    assert {one["example_id"]: one["input_ids"] for one in found.examples.to_pylist()} == expected


def test_a_row_of_as_many_tokens_as_an_example_may_have_is_one() -> None:
    (example,) = cut({"input_ids": IDS}, 5).examples.to_pylist()
    assert (example["example_id"], example["input_ids"]) == ("s-00000/000000", IDS)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({"labels": [-100, -100, -100, 8, 9]}, {"s-00000/000000#2": [8, 9]}),
        ({"loss_mask": [0, 1, 1, 0, 0]}, {"s-00000/000000#1": [5, 6, 7]}),
        ({"labels": [5, 6, -100, 8, -100]}, {"s-00000/000000#1": [5, 6, 7]}),
        ({"labels": [5, 6, 7, 8, 9], "loss_mask": [0, 0, 0, 1, 1]}, {"s-00000/000000#2": [8, 9]}),
    ],
)
def test_where_a_row_is_cut_parts_without_loss_are_left_out(
    marks: dict[str, Any], expected: dict[str, list[int]]
) -> None:
    found = cut({"input_ids": IDS, **marks}, 3)
    assert {one["example_id"]: one["input_ids"] for one in found.examples.to_pylist()} == expected
    assert found.rejected.num_rows == 0, "they count among bad rows, of which a run takes only some"


def test_where_a_row_is_cut_labels_are_cut_with_it() -> None:
    found = cut({"input_ids": IDS, "labels": [-100, 6, 7, -100, 9]}, 3)
    assert found.examples["labels"].to_pylist() == [[-100, 6, 7], [-100, 9]]


def test_a_row_that_is_cut_and_has_no_loss_at_all_is_set_aside() -> None:
    found = cut({"input_ids": IDS, "labels": [-100] * 5}, 3)
    assert found.rejected["reason"].to_pylist() == ["no label carries loss: all are -100"] * 2


def test_a_row_with_padding_in_front_is_refused_where_it_is_cut_too() -> None:
    found = cut({"input_ids": IDS, "attention_mask": [0, 1, 1, 1, 1]}, 2)
    assert found.rejected["reason"].to_pylist() == ["attention_mask hides tokens: store the row without padding"]
    assert found.examples.num_rows == 0


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int8(), pa.float32()])
def test_masks_of_rows_that_are_cut_keep_their_type(tmp_path: Path, kind: pa.DataType) -> None:
    rows = pa.table({"input_ids": [IDS], "attention_mask": pa.array([[1] * 4 + [0]]).cast(pa.list_(kind))})
    pq.write_table(rows, tmp_path / "in.parquet")
    source = Source(name="docs", path="in.parquet", tokens_per_example=2)
    (piece,) = list_shards(source, tmp_path)
    examples = sort_out(read_shard(source, piece, tmp_path), source.columns, piece.shard)
    written = source_rows(source, piece, tmp_path, examples.shard_hash, [0, 1]).table()
    assert written["attention_mask"].to_pylist() == [[1, 1], [1, 1]]
    assert written.schema.field("attention_mask").type == pa.list_(kind)


def test_rows_of_text_are_not_cut_by_tokens() -> None:
    with pytest.raises(
        SourceError, match=r"a\.jsonl: `tokens_per_example` is for rows of token ids, and these hold text"
    ):
        cut({"text": "A fox."}, 2)


@given(st.integers(2, 40), st.integers(2, 12))
def test_what_is_cut_is_all_of_the_row_but_a_single_token_at_its_end(n_tokens: int, most_tokens: int) -> None:
    ids = list(range(n_tokens))
    pieces = cut({"input_ids": ids}, most_tokens).examples["input_ids"].to_pylist()
    assert all(2 <= len(piece) <= most_tokens for piece in pieces)
    left = n_tokens % most_tokens == 1
    assert [token for piece in pieces for token in piece] == (ids[:-1] if left else ids)


def test_a_query_is_one_sequence() -> None:
    row = {"input_ids": IDS, "seq_lengths": [2, 3]}
    queries = sort_out(RawShard("queries", tuple(row), ((0, row),)), Columns(), "queries", NO_SCALARS)
    assert queries.rejected["reason"].to_pylist() == [
        "the row holds 2 sequences of 5 tokens by its seq_lengths: give each a row of its own"
    ]


@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.integers(0, 3))
def test_whatever_was_packed_is_found_again_by_every_mark(lengths: list[int], n_padding: int) -> None:
    n = sum(lengths)
    ends = [sum(lengths[:k]) for k in range(len(lengths) + 1)]
    expected = tuple(range(a, b) for a, b in pairwise(ends) if b - a > 1)
    assume(len(expected) > 1)
    mask = [1] * n + [0] * n_padding
    numbers = [number for number, length in enumerate(lengths, start=1) for _ in range(length)]
    marks = {
        "seq_lengths": lengths,
        "cu_seqlens": ends,
        "segment_ids": numbers + [0] * n_padding,
        "position_ids": [k for length in lengths for k in range(length)] + [0] * n_padding,
    }
    for column, value in marks.items():
        assert packed_sequences({column: value, "attention_mask": mask}, n + n_padding) == expected
    assert packed_sequences({"attention_mask": numbers + [0] * n_padding}, n + n_padding) == expected


class TestSelected:
    """Packed rows that are written again."""

    TABLE = pa.table(
        {
            "id": pa.array([7, 8], pa.int32()),
            "input_ids": pa.array([IDS, [1, 2, 3, 4, 0]], pa.list_(pa.uint16(), 5)),
            "attention_mask": pa.array([[1] * 5, [1, 1, 1, 1, 0]], pa.list_(pa.int8())),
            "seq_lengths": pa.array([[2, 3], [2, 2]], pa.list_(pa.int64())),
            "topic": pa.array(["foxes", "dogs"], pa.large_string()),
        },
        metadata={"huggingface": "{}"},
    )

    def selected(self, folder: Path, places: list[int]) -> pa.Table:
        source = Source(name="docs", path="in.parquet", columns=Columns(id="id"))
        (piece,) = list_shards(source, folder)
        examples = sort_out(read_shard(source, piece, folder), source.columns, piece.shard)
        rows = source_rows(source, piece, folder, examples.shard_hash, places)
        write_parquet(folder / "out.parquet", "docs", [rows], {})
        return pq.read_table(folder / "out.parquet")

    def test_a_selection_holds_the_sequences_that_were_chosen_as_rows_of_their_own(self, tmp_path: Path) -> None:
        pq.write_table(self.TABLE, tmp_path / "in.parquet")
        found = self.selected(tmp_path, [1, 2])
        assert found.to_pylist() == [
            {"id": "7#2", "input_ids": [7, 8, 9], "attention_mask": [1, 1, 1], "topic": "foxes"},
            {"id": "8#1", "input_ids": [1, 2], "attention_mask": [1, 1], "topic": "dogs"},
        ]
        assert found.schema.field("input_ids").type == pa.list_(pa.uint16())
        assert found.schema.field("topic").type == pa.large_string()
        assert b"huggingface" not in found.schema.metadata

    @pytest.mark.parametrize("place", [0, 1])
    def test_a_selection_holds_the_parts_of_a_long_row_that_were_chosen(self, tmp_path: Path, place: int) -> None:
        table = pa.table({"input_ids": pa.array([IDS], pa.large_list(pa.uint16())), "topic": ["foxes"]})
        pq.write_table(table, tmp_path / "in.parquet")
        source = Source(name="docs", path="in.parquet", tokens_per_example=2)
        (piece,) = list_shards(source, tmp_path)
        examples = sort_out(read_shard(source, piece, tmp_path), source.columns, piece.shard)
        assert examples.examples["input_ids"].to_pylist() == [[5, 6], [7, 8]]
        rows = source_rows(source, piece, tmp_path, examples.shard_hash, [place]).table()
        assert rows.to_pylist() == [{"input_ids": [[5, 6], [7, 8]][place], "topic": "foxes"}]
        assert rows.schema.field("input_ids").type == pa.large_list(pa.uint16())

    def test_what_was_selected_is_read_as_the_same_examples(self, tmp_path: Path) -> None:
        pq.write_table(self.TABLE, tmp_path / "in.parquet")
        self.selected(tmp_path, [0, 1, 2, 3])
        contents = []
        for file in ("in.parquet", "out.parquet"):
            source = Source(name="docs", path=file, columns=Columns(id="id"))
            (piece,) = list_shards(source, tmp_path)
            examples = sort_out(read_shard(source, piece, tmp_path), source.columns, piece.shard).examples
            contents.append(examples.select(["example_id", "content_hash", "metadata"]))
        assert contents[0].equals(contents[1])

    @pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 3, 0, 1]])
    @pytest.mark.parametrize("token_type", [None, "uint16"])
    def test_a_selection_holds_sequences_and_the_rows_of_shards_without_any(
        self, tmp_path: Path, order: list[int], token_type: TokenType | None
    ) -> None:
        ids = [[4 * k, 1, 2, 3] for k in range(4)]
        table = pa.table(
            {
                "id": [7, 8, 9, 10],
                "input_ids": ids if token_type is None else [np.array(row, token_type).tobytes() for row in ids],
                "position_ids": [[0, 1, 0, 1], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]],
            }
        ).replace_schema_metadata({"huggingface": "{}"})
        pq.write_table(table.take(order), tmp_path / "in.parquet")

        def shards(file: str, rows_per_shard: int) -> list[tuple[NormalisedShard, SourceRows]]:
            source = Source(
                name="docs", path=file, columns=Columns(id="id"), rows_per_shard=rows_per_shard, token_type=token_type
            )
            found = []
            for piece in list_shards(source, tmp_path):
                examples = sort_out(read_shard(source, piece, tmp_path), source.columns, piece.shard)
                places = examples.examples["row"].to_pylist()
                found.append((examples, source_rows(source, piece, tmp_path, examples.shard_hash, places)))
            return found

        before = shards("in.parquet", 2)
        write_parquet(tmp_path / "out.parquet", "docs", [rows for _, rows in before], {})
        ((after, _),) = shards("out.parquet", 9)
        names = ["example_id", "content_hash"]
        assert after.examples.select(names).to_pylist() == [
            row for examples, _ in before for row in examples.examples.select(names).to_pylist()
        ]
        assert {*after.examples["example_id"].to_pylist()} == {"7#1", "7#2", "8", "9", "10"}
        assert b"huggingface" not in pq.read_schema(tmp_path / "out.parquet").metadata

    def test_sequences_of_json_lines_are_written_as_lines(self, tmp_path: Path) -> None:
        (tmp_path / "in.jsonl").write_text(json.dumps({"input_ids": IDS, "position_ids": [0, 1, 0, 1, 2], "n": 3}))
        source = Source(name="docs", path="in.jsonl")
        (piece,) = list_shards(source, tmp_path)
        examples = sort_out(read_shard(source, piece, tmp_path), source.columns, piece.shard)
        lines = source_rows(source, piece, tmp_path, examples.shard_hash, [1]).lines()
        assert list(map(json.loads, lines)) == [{"input_ids": [7, 8, 9], "n": 3}]


class TestInAProject:
    """Packed rows from the source to the scores."""

    ROWS = ([5, 6, 7, 8, 9], [3, 4, 5, 6, 7]), ([9, 8, 7, 6, 5], [2, 3, 4, 5, 6])

    @pytest.fixture
    def packed(self, private_project: TinyProject) -> TinyProject:
        rows = [
            {"id": str(k), "input_ids": one + other, "position_ids": [*range(5), *range(5)]}
            for k, (one, other) in enumerate(self.ROWS)
        ]
        (private_project.root / "packed.jsonl").write_text("\n".join(map(json.dumps, rows)))
        toml = private_project.root / "lorif.toml"
        named = 'name = "packed"\npath = "packed.jsonl"\ncolumns = { id = "id", input_ids = "input_ids" }'
        toml.write_text(f"[[sources]]\n{named}\n{toml.read_text()}")
        return TinyProject.open(private_project.root, private_project.instance)

    def test_each_sequence_is_stored_under_an_id_and_a_number_of_its_own(self, packed: TinyProject) -> None:
        packed.run("training_examples", "packed-00000")
        stored = packed.table(TRAINING_EXAMPLES, shard="packed-00000").sort("row")
        assert stored["example_id"].to_list() == ["0#1", "0#2", "1#1", "1#2"]
        assert stored["row"].to_list() == [0, 1, 2, 3]
        assert stored["input_ids"].to_list() == [tokens for row in self.ROWS for tokens in row]
        assert packed.stale("training_examples") == {}

    def test_rows_are_cut_again_when_the_settings_say_so(self, packed: TinyProject) -> None:
        packed.run("training_examples", "packed-00000")
        toml = packed.root / "lorif.toml"
        toml.write_text(toml.read_text().replace('name = "packed"', 'name = "packed"\ntokens_per_example = 4'))
        cut = TinyProject.open(packed.root, packed.instance)
        assert list(cut.stale("training_examples")) == ["packed-00000"]
        cut.run("training_examples", "packed-00000")
        stored = cut.table(TRAINING_EXAMPLES, shard="packed-00000").sort("row")
        # Of the sequences of five tokens in each row.
        assert stored["example_id"].to_list() == ["0#1", "0#2", "1#1", "1#2"]
        assert stored["input_ids"].to_list() == [tokens[:4] for row in self.ROWS for tokens in row]

    def diagnosed(self, packed: TinyProject) -> str:
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LORIF_CONFIG", str(packed.root / "lorif.toml"))
            diagnose(Console(file=output, width=1_000))
        return output.getvalue()

    def test_the_doctor_counts_the_sequences(self, packed: TinyProject) -> None:
        assert "its rows hold several examples each, about 4 in all" in self.diagnosed(packed)

    def test_the_doctor_counts_those_that_it_does_not_look_at_and_takes_no_beginning_for_the_whole(
        self, packed: TinyProject
    ) -> None:
        # Of each row a part is looked at, in which nothing carries loss.
        row = {"input_ids": [7] * 500, "labels": [-100] * 450 + [7] * 50, "position_ids": [*range(5)] * 100}
        lines = "\n".join(json.dumps({"id": str(k), **row}) for k in range(20))
        (packed.root / "packed.jsonl").write_text(lines)
        toml = packed.root / "lorif.toml"
        toml.write_text(toml.read_text().replace('name = "packed"', 'name = "packed"\nrows_per_shard = 1', 1))
        said = self.diagnosed(packed)
        assert "about 2,000 in all" in said
        assert "can be used" not in said

    def test_ids_that_only_sequences_share_name_the_rows(self, packed: TinyProject) -> None:
        (one,) = (found for found in look_around(packed.root).sources if found.source.path == "packed.jsonl")
        assert (one.source.columns.id, one.no_id) == ("id", None)

    def test_a_preview_shows_the_first_sequences_and_where_they_are(self, packed: TinyProject) -> None:
        (source, *_) = packed.settings.sources
        ((_, found),) = first_rows(source, packed.root, 3)
        assert [found.place(row) for row, _ in found.rows] == [
            *("packed.jsonl, row 0, sequence 1", "packed.jsonl, row 0, sequence 2", "packed.jsonl, row 1, sequence 1"),
        ]

    def test_sequences_without_loss_are_a_share_of_sequences_and_not_of_rows(self, packed: TinyProject) -> None:
        labels = [-100] * 5 + [7] * 5 * 30
        row = {"id": "a", "input_ids": [7] * 5 * 31, "labels": labels, "position_ids": [*range(5)] * 31}
        (packed.root / "packed.jsonl").write_text(json.dumps(row))
        packed.run("training_examples", "packed-00000")
        assert len(packed.table(TRAINING_EXAMPLES, shard="packed-00000")) == 30


def test_rows_in_memory_are_unpacked_too() -> None:
    found = normalised_rows([{"input_ids": IDS, "seq_lengths": [2, 3]}], None, "examples").examples
    assert found["example_id"].to_pylist() == ["0#1", "0#2"]
