"""Anchors and pool: drawn from queries or examples, apart from one another, and decided by content alone."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.errors import SourceError
from lorif_assets.influcoder.sampling import Role, SampledText, Split, draw_sample
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

WANTED = InflucoderSettings(anchors=10, held_out_anchors=4, pool=20, held_out_pool=6)


def _write(lake: Lake, schema: TableSchema, partition: tuple[str, str], name: str, texts: list[str]) -> None:
    rows = [
        {
            partition[0]: partition[1],
            name: f"{partition[1]}-{row}",
            "row": row,
            "format": "text",
            "text": text,
            "content_hash": f"hash of {text}",
        }
        for row, text in enumerate(texts)
    ]
    types = {field.name: pl.String if str(field.type) == "string" else pl.Int64 for field in schema.columns}
    frame = pl.DataFrame(rows).with_columns(
        pl.lit(None).cast(pl.List(pl.Int32) if column in {"input_ids", "labels"} else kind).alias(column)
        for column, kind in types.items()
        if column not in rows[0]
    )
    lake.replace(schema, {partition[0]: partition[1]}, frame.to_arrow())


def _texts(word: str, n: int) -> list[str]:
    return [f"{word} number {row} says {word}{row} and then {word}{row + 1000} of it" for row in range(n)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(root=str(tmp_path))
    _write(found, TRAINING_EXAMPLES, ("shard", "s"), "example_id", _texts("passage", 200))
    _write(found, QUERY_EXAMPLES, ("query_set", "few"), "query_id", _texts("question", 5))
    return found


def _drawn(lake: Lake, **changes: Any) -> list[SampledText]:
    return draw_sample(lake, WANTED.model_copy(update=changes), str)


def _counts(sampled: list[SampledText]) -> dict[tuple[Role, Split], int]:
    return {
        (role, split): sum((one.role, one.split) == (role, split) for one in sampled)
        for role in Role
        for split in Split
    }


def test_each_purpose_gets_as_many_texts_as_wanted_each_once(lake: Lake) -> None:
    sampled = _drawn(lake)
    assert _counts(sampled) == {
        (Role.ANCHOR, Split.DISTIL): 10,
        (Role.ANCHOR, Split.HELD_OUT): 4,
        (Role.POOL, Split.DISTIL): 20,
        (Role.POOL, Split.HELD_OUT): 6,
    }
    assert len({one.row["content_hash"] for one in sampled}) == 40


def test_anchors_are_queries_where_there_are_enough_of_them(lake: Lake) -> None:
    assert {one.source for one in _drawn(lake)} == {"s"}
    _write(lake, QUERY_EXAMPLES, ("query_set", "many"), "query_id", _texts("request", 30))
    sources = {role: {one.source for one in _drawn(lake) if one.role is role} for role in Role}
    assert sources[Role.ANCHOR] <= {"few", "many"}
    assert sources[Role.POOL] == {"s"}


def test_a_pool_text_that_repeats_an_anchor_is_left_out(lake: Lake) -> None:
    _write(lake, QUERY_EXAMPLES, ("query_set", "same"), "query_id", [f"{text}!" for text in _texts("passage", 80)[:40]])
    sampled = _drawn(lake, anchor_texts="queries")
    said = {one.row["text"].rstrip("!") for one in sampled if one.role is Role.ANCHOR}
    assert not said & {one.row["text"] for one in sampled if one.role is Role.POOL}


def test_a_text_keeps_its_purpose_when_the_data_grows(lake: Lake) -> None:
    before = {one.row["content_hash"]: (one.role, one.split) for one in _drawn(lake)}
    _write(lake, TRAINING_EXAMPLES, ("shard", "t"), "example_id", _texts("page", 80))
    after = {one.row["content_hash"]: (one.role, one.split) for one in _drawn(lake)}
    both = before.keys() & after.keys()
    assert len(both) >= 5
    assert {content: before[content] for content in both} == {content: after[content] for content in both}


def test_another_seed_draws_another_sample(lake: Lake) -> None:
    assert _drawn(lake, seed=1) != _drawn(lake)


def test_too_few_texts_are_an_error_that_says_of_what(lake: Lake) -> None:
    _write(lake, TRAINING_EXAMPLES, ("shard", "s"), "example_id", _texts("passage", 3))
    with pytest.raises(SourceError, match=r"texts could be drawn as \w+ \w+"):
        _drawn(lake)
