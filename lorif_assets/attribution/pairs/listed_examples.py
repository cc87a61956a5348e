"""The training examples that scores list, tokenized again."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.data.passages import passage_rows
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    from lorif_assets.data.tokens.tokenization import TokenizedExample

ListedExamples = Mapping[tuple[str, str], "TokenizedExample"]
"""Tokenized examples by (shard, example_id)."""


def listed_examples(lake: Lake, attributed: AttributedModel, listed: Iterable[tuple[str, str]]) -> ListedExamples:
    """Return the training examples of these (shard, example_id); those that were withdrawn are left out."""
    return tokenized_by_shard(attributed, passage_rows(lake, listed))


def tokenized_by_shard(attributed: AttributedModel, rows: pl.DataFrame) -> ListedExamples:
    """Return rows of `training_examples`, tokenized; those that cannot be used are left out."""
    return {
        (shard, example.example_id): example
        for (shard,), of_shard in rows.group_by("shard")
        for example in attributed.tokenized(of_shard.sort("row").to_arrow()).examples
    }
