"""What `preview` shows of rows: by the very tokens, labels and reasons that attribution works with."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.content.query_objectives import NO_SCALARS
from lorif_assets.data.formats.reader import MalformedRow, RawShard
from lorif_assets.data.preview import Piece, first_queries, first_rows, pieces, preview_rows
from lorif_assets.data.tokens.rules import TokenRules
from tests.data.conftest import make_tokenizer
from tests.data.tokenizers import byte_level


def raw(*rows: dict[str, Any]) -> RawShard:
    return RawShard("rows", tuple(rows[0]), tuple(enumerate(rows)))


def test_the_pieces_are_the_whole_input_in_runs_with_and_without_loss() -> None:
    (row,) = preview_rows(
        raw({"prompt": "hello", "completion": " world"}), Columns(), "s", make_tokenizer("<s> $A"), 64, 300
    )
    assert row.pieces == (Piece("<s>hello", loss=False), Piece(" world", loss=True))
    assert row.example_id == "s/000000"
    assert (row.n_targets, row.cut, row.rejected) == (2, None, None)
    assert [label for label in row.labels if label != NO_LOSS] == list(row.input_ids[-2:])


def test_the_first_token_carries_no_loss_whatever_its_label_is() -> None:
    (row,) = preview_rows(raw({"input_ids": [5, 6]}), Columns(), "s", make_tokenizer(), 64, 300)
    assert row.labels == (5, 6)
    assert [piece.loss for piece in row.pieces] == [False, True]
    assert row.n_targets == 1


def test_what_is_cut_is_said_with_its_rule() -> None:
    (row,) = preview_rows(
        raw({"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}),
        Columns(),
        "s",
        make_tokenizer(),
        3,
        300,
        rules=TokenRules(truncation="keep_end"),
    )
    assert row.input_ids == (6, 7, 8)
    assert row.cut
    assert row.cut.startswith("1 tokens in front and 0 behind of 4: at most 3 are kept")
    assert row.cut.endswith("by the rule keep_end")


def test_rows_set_aside_stand_in_their_place_with_the_reason_of_either_stage() -> None:
    shard = RawShard(
        "rows",
        ("input_ids",),
        ((0, {"input_ids": [5, 6]}), (2, {"input_ids": []}), (3, {"input_ids": [9, 999]})),
        (MalformedRow(1, "malformed JSON", "{"),),
    )
    rows = preview_rows(shard, Columns(), "s", make_tokenizer(), 64, 300)
    assert [row.rejected for row in rows] == [
        None,
        "malformed JSON",
        "input_ids is empty",
        "token id 999 does not fit the model, whose embedding has 300 rows",
    ]


def test_a_run_keeps_the_space_that_a_decoder_drops_in_front_of_a_text() -> None:
    vocabulary = {"\N{LOWER ONE EIGHTH BLOCK}hello": 0, "\N{LOWER ONE EIGHTH BLOCK}world": 1, "<unk>": 2}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    shown = pieces(np.array([0, 1]), np.array([NO_LOSS, 1]), tokenizer)
    assert shown == (Piece("hello", loss=False), Piece(" world", loss=True))


def test_queries_are_shown_by_what_they_ask_about() -> None:
    names = ("prompt", "completion", "span", "against", "weighted")
    plain = {"prompt": "hello", "completion": " world peace"}
    asked = (
        {**plain, "span": "peace"},
        {**plain, "against": " war"},
        {"weighted": [{"prompt": "hello", "completion": " you", "weight": 2}, {"completion": "bye", "weight": -0.5}]},
        {**plain, "span": "war"},
    )
    shard = RawShard("queries", names, tuple(enumerate(asked)))
    rows = preview_rows(shard, Columns(), "q", byte_level(), 64, 400, scalar_rules=NO_SCALARS)
    assert [(row.row, row.weight, "".join(piece.text for piece in row.pieces if piece.loss)) for row in rows] == [
        (0, 1, "peace"),
        (1, 1, " world peace"),
        (1, -1, " war"),
        (2, 2, " you"),
        (2, -0.5, "ye"),
        (3, 1, ""),
    ]
    assert "the span 'war' occurs 0 times" in (rows[-1].rejected or "")
    training = preview_rows(shard, Columns(), "q", byte_level(), 64, 400)
    assert [row.n_targets for row in training][:2] == [rows[1].n_targets] * 2, "the columns are metadata there"


def test_a_source_is_read_no_further_than_its_first_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "0"}\n{"text": "1"}\nbroken\n{"text": "3"}')
    source = Source(name="s", path="a.jsonl", rows_per_shard=2)
    read = list(first_rows(source, tmp_path, 3))
    assert [shard for shard, _ in read] == ["s-00000", "s-00001"]
    assert [(len(shard.rows), len(shard.malformed)) for _, shard in read] == [(2, 0), (0, 1)]
    assert [shard for shard, _ in first_rows(source, tmp_path, 2)] == ["s-00000"]


def test_queries_are_numbered_through_their_file(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("\n".join(f'{{"text": "{k}"}}' for k in range(5)))
    ((name, shard),) = first_queries(Source(name="q", path="q.jsonl", rows_per_shard=2), tmp_path, 3)
    assert name == "q"
    assert [row for row, _ in shard.rows] == [0, 1, 2]


def test_a_row_is_found_again_by_its_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.jsonl").write_text('{"text": "0 1 2"}\n{"text": "1 2 3"}\nbroken\n{"text": ""}')
    source = Source(name="s", path="data", rows_per_shard=2)
    tokenizer = make_tokenizer()
    rows = [
        row
        for shard, read in first_rows(source, tmp_path, 10)
        for row in preview_rows(read, Columns(), shard, tokenizer, 64, 300)
    ]
    assert [row.place for row in rows] == [f"data/a.jsonl, row {k}" for k in range(4)]
    assert [row.as_json()["place"] for row in rows if row.rejected] == ["data/a.jsonl, row 2", "data/a.jsonl, row 3"]
