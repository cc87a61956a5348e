"""What trainers write beside token ids: masks of the loss are followed, and shifted labels set the row aside."""

from typing import Any

import pytest

from lorif_assets.config.sources import Columns
from lorif_assets.data.examples import NormalisedShard, sort_out
from lorif_assets.data.formats.reader import RawShard

IDS = [5, 6, 7, 8]


def shard(row: dict[str, Any], **columns: Any) -> NormalisedShard:
    return sort_out(RawShard("a.jsonl", tuple(row), ((0, row),)), Columns(**columns), "s-00000")


def read(row: dict[str, Any], **columns: Any) -> dict[str, Any]:
    found = shard(row, **columns)
    assert found.rejected.num_rows == 0
    (example,) = found.examples.to_pylist()
    return dict(example)


def reason(row: dict[str, Any], **columns: Any) -> str:
    (why,) = shard(row, **columns).rejected["reason"].to_pylist()
    return str(why)


@pytest.mark.parametrize("column", ["completion_mask", "assistant_masks", "loss_mask"])
@pytest.mark.parametrize("mask", [[0, 0, 1, 1], [False, False, True, True], [0.0, 0.0, 1.0, 1.0]])
def test_a_mask_of_the_loss_is_the_same_as_labels(column: str, mask: list[Any]) -> None:
    masked, labelled = read({"input_ids": IDS, column: mask}), read({"input_ids": IDS, "labels": [-100, -100, 7, 8]})
    assert masked["labels"] == [-100, -100, 7, 8]
    assert (masked["content_hash"], masked["metadata"]) == (labelled["content_hash"], "{}")


def test_of_several_masks_and_labels_each_takes_loss_away() -> None:
    masks = {"completion_mask": [0, 1, 1, 1], "assistant_masks": [1, 1, 0, 1]}
    assert read({"input_ids": IDS, **masks})["labels"] == [-100, 6, -100, 8]
    assert read({"input_ids": IDS, "labels": [5, 6, 7, -100], **masks})["labels"] == [-100, 6, -100, -100]


def test_a_mask_covers_padding_too() -> None:
    row = {"input_ids": [*IDS, 0], "completion_mask": [0, 1, 1, 1, 0], "attention_mask": [1, 1, 1, 1, 0]}
    assert (read(row)["input_ids"], read(row)["labels"]) == (IDS, [-100, 6, 7, 8])


def test_a_row_without_a_mask_carries_loss_everywhere() -> None:
    assert read({"input_ids": IDS, "completion_mask": None})["labels"] is None


def test_a_mask_that_the_settings_name_is_what_they_say() -> None:
    row = {"input_ids": IDS, "loss_mask": [0, 0, 1, 1]}
    assert read(row, metadata=("loss_mask",))["labels"] is None
    labels = {"input_ids": IDS, "loss_mask": [-100, -100, 7, 8]}
    assert read(labels, input_ids="input_ids", labels="loss_mask")["labels"] == [-100, -100, 7, 8]


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        ([0, 1], "completion_mask has 2 entries and input_ids 4"),
        ([0, 2, 1, 1], "completion_mask is no list of 0 and 1, which says for each token whether it carries loss"),
        ("0111", "completion_mask is no list of 0 and 1, which says for each token whether it carries loss"),
        ([0, 0, 0, 0], "no label carries loss: all are -100"),
    ],
)
def test_a_mask_that_is_none_sets_the_row_aside(mask: Any, why: str) -> None:
    assert reason({"input_ids": IDS, "completion_mask": mask}) == why


@pytest.mark.parametrize(
    "single",
    [
        {"position_ids": [0, 1, 2, 3]},
        {"seq_lengths": [4]},
        {"position_ids": None},
        {"cu_seqlens": [0, 4]},
        {"seq_idx": [0, 0, 0, 0]},
        {"sequence_id": [0, 0, 0, -1]},
        {"segment_ids": [1, 1, 0, 0]},
        {"document_ids": [88, 7]},
        {"document_ids": ["a", "a", "b", "b"]},
    ],
)
def test_a_row_of_one_sequence_is_read(single: dict[str, Any]) -> None:
    assert read({"input_ids": IDS, **single})["input_ids"] == IDS


def test_packing_that_the_settings_leave_out_is_not_looked_at() -> None:
    assert read({"input_ids": IDS, "position_ids": [0, 1, 0, 1]}, metadata=())["input_ids"] == IDS


def test_labels_that_were_shifted_are_set_aside_and_others_are_used_as_given() -> None:
    for labels in ([6, 7, 8, -100], [-100, 7, 8, 0], [6, 7, 8, 9]):
        assert "labels are those of the next token" in reason({"input_ids": IDS, "labels": labels})
    for ids, labels in ((IDS, IDS), (IDS, [-100, 6, 7, 8]), ([5, 5, 5], [5, 5, 5]), (IDS, [6, 6, 7, 8])):
        assert read({"input_ids": ids, "labels": labels})["labels"] == labels
