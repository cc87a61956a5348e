"""A lake that was never computed: a few examples, queries and scores by hand, hostile texts among them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import (
    CHECKPOINT_COMPARISONS,
    CHECKPOINTS,
    GRADIENT_FACTORS,
    QUERY_SCORES,
    QUERY_SUMMARIES,
    RELATIVE_SCORES,
)
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES, EVALUATION_FIGURES, METHOD_COSTS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

SHARD, SET = "docs", "odd & ends"
EARLY, LATE = "step-100", "step-200"
HOSTILE = """<script>document.title = "owned"</script><img src=x onerror="document.title='owned'">' " & </textarea>"""
REPEATED = "the quick brown fox jumps over the lazy dog and then it sleeps under the old oak tree until morning"

CHAT = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A model."}]
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "fox": {"text": REPEATED, "metadata": {"topic": "animals", "tags": ["fox", "dog"]}},
    "fox/again": {"text": f"{REPEATED}.", "metadata": {"topic": "animals", "tags": ["fox"]}},
    "hostile": {"text": HOSTILE, "metadata": {"topic": HOSTILE, "<b>column": "x"}},
    "chat": {"messages": CHAT, "metadata": {"topic": "chats"}},
    "asked": {"prompt": "Two and two?", "completion": " Four.", "metadata": {"topic": "sums", "year": 2026}},
    "plain": {"text": "nothing in particular", "metadata": {}},
}
QUERIES: Mapping[str, tuple[str, str]] = {"q/1": ("What jumps?", " A fox."), HOSTILE: (HOSTILE, HOSTILE)}
# Scores of each query: highest and lowest two are stored.
_SCORES = {"fox": 4.0, "fox/again": 3.0, "hostile": 2.0, "chat": -1.0, "asked": -2.0, "plain": -6.0}
_SIZES = {"fox": 8.0, "fox/again": 1.0, "hostile": 4.0, "chat": 1.0, "asked": 8.0, "plain": 4.0}
_STD = 2.0


def put(lake: Lake, schema: TableSchema, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of one or several partitions; columns that they lack are null."""
    keys = {tuple(row[name] for name in schema.partition_by) for row in rows}
    for key in keys:
        partition = dict(zip(schema.partition_by, key, strict=True))
        own = [row for row in rows if all(row[name] == value for name, value in partition.items())]
        lake.replace(schema, partition, pa.Table.from_pylist(own, schema=schema.columns))


def stored_influences(
    root: Path,
    n_listed: int = 3,
    names: Sequence[str] = tuple(EXAMPLES),
    said: Mapping[str, tuple[str, str]] = QUERIES,
) -> Lake:
    """Write the lake: two checkpoints, one query set, both rankings, and scores of two methods from an evaluation."""
    lake = Lake(str(root))
    recipe = Recipe()
    put(lake, TRAINING_EXAMPLES, [_example(name, row) for row, name in enumerate(names)])
    queries = [
        {"query_set": SET, "query_id": name, "row": row, "format": "prompt_completion", "metadata": '{"kind": "test"}'}
        | dict(zip(("prompt", "completion"), exchange, strict=True))
        for row, (name, exchange) in enumerate(said.items())
    ]
    put(lake, QUERY_EXAMPLES, queries)
    for step, checkpoint in ((100, EARLY), (200, LATE)):
        at = {"checkpoint": checkpoint, "query_set": SET}
        put(lake, CHECKPOINTS, [{"checkpoint": checkpoint, "step": step}])
        put(
            lake,
            GRADIENT_FACTORS,
            [
                {"checkpoint": checkpoint, "shard": SHARD, "example_id": name, "loss": 20.0 / step * 100}
                | {"n_target_tokens": 10, "truncated": name == "plain", "row": row}
                for row, name in enumerate(names)
            ],
        )
        summary = {"loss": 6.0, "n_target_tokens": 3, "n_examples": len(names), "score_std": _STD, "top_10_share": 1.0}
        summary |= {"top_100_share": 1.0, "recipe_hash": recipe.score_hash, "computed_from": "now"}
        put(lake, QUERY_SUMMARIES, [{**at, "query_id": query, **summary} for query in said])
        # At the earlier checkpoint the sign of everything is the other way round.
        sign = -1 if checkpoint == EARLY else 1
        scores = {name: sign * score for name, score in _SCORES.items()}
        relative = {name: score / _SIZES[name] for name, score in scores.items()}
        for schema, ranked in ((QUERY_SCORES, scores), (RELATIVE_SCORES, relative)):
            put(
                lake,
                schema,
                [
                    {**at, "query_id": query, "side": side, "rank": rank, "example_id": name, "shard": SHARD}
                    | {"score": scores[name], "relative_score": relative[name], "computed_from": "now"}
                    for query in said
                    for side, order in (("highest", -1), ("lowest", 1))
                    for rank, name in enumerate(sorted(ranked, key=lambda name: order * ranked[name])[:n_listed], 1)
                ],
            )
        for method, by in (("lorif", 1.0), ("bm25", -1.0)):
            rows = [
                {**at, "method": method, "query_id": query, "example_id": name, "score": by * score}
                for query in said
                for name, score in scores.items()
            ]
            put(lake, EVALUATED_SCORES, rows)
            put(lake, METHOD_COSTS, [{**at, "method": method}])
    put(
        lake,
        CHECKPOINT_COMPARISONS,
        [
            {"query_set": SET, "query_id": query, "from_checkpoint": EARLY, "to_checkpoint": LATE}
            | {"rank_biased_overlap": 0.25, "relative_overlap": 0.5}
            for query in said
        ],
    )
    return lake


def measured(lake: Lake, checkpoint: str, metric: str, value: float, low: float, high: float) -> None:
    """Store a figure of an evaluation of LoRIF."""
    row = {"checkpoint": checkpoint, "query_set": SET, "evaluation": metric, "metric": metric, "statistic": "mean"}
    put(lake, EVALUATION_FIGURES, [row | {"method": "lorif", "value": value, "low": low, "high": high}])


def _example(name: str, row: int) -> Mapping[str, Any]:
    content = dict(EXAMPLES[name])
    kind = "messages" if "messages" in content else "prompt_completion" if "prompt" in content else "text"
    if kind == "messages":
        content["messages"] = json.dumps(content["messages"])
    content["metadata"] = json.dumps(content["metadata"])
    return {"shard": SHARD, "example_id": name, "row": row, "format": kind, **content}
