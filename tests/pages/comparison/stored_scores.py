"""A lake that holds checkpoints, queries, examples and scores as rows, without a model having been run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.attribution.stored.versions import score_version
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import CHECKPOINTS, QUERY_SCORES, QUERY_SUMMARIES, RELATIVE_SCORES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

QUERY_SET = "questions"
SHARD = "docs-00000"
Rankings = Mapping[str, Sequence[str]]
"""Example ids by query id, the strongest proponent first."""


@dataclass(frozen=True)
class StoredScores:
    """Writes what a comparison reads."""

    lake: Lake
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def settings(self) -> Settings:
        return Settings(recipe=self.recipe)

    @classmethod
    def at(cls, root: Path) -> "StoredScores":
        return cls(Lake(root=str(root)))

    def write(self, schema: TableSchema, partition: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
        filled = [{**dict.fromkeys(schema.columns.names), **partition, **row} for row in rows]
        self.lake.replace(schema, partition, pa.Table.from_pylist(filled, schema=schema.columns))

    def examples(self, ids: Sequence[str], version: str = "data 1") -> None:
        rows = [
            {
                "example_id": name,
                "row": row,
                "format": "text",
                "text": f"passage {name}",
                "metadata": '{"topic": "with"}',
                "shard_hash": version,
            }
            for row, name in enumerate(ids)
        ]
        self.write(TRAINING_EXAMPLES, {"shard": SHARD}, rows)

    def queries(self, *ids: str, objectives: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Store the query set; `objectives` say what is asked about where that is not the completion's loss."""
        rows = [
            {
                "query_id": name,
                "row": row,
                "format": "prompt_completion",
                "prompt": f"prompt {name}",
                "completion": f" completion {name}",
                "objective": json.dumps(objectives[name]) if objectives and name in objectives else None,
                "query_set_hash": content_hash(ids),
            }
            for row, name in enumerate(ids)
        ]
        self.write(QUERY_EXAMPLES, {"query_set": QUERY_SET}, rows)

    def checkpoint(self, name: str, step: int | None) -> None:
        row = {
            "step": step,
            "weights_hash": f"weights of {name}",
            "tokenizer_hash": "tokenizer",
            "model_type": "gpt2",
            "n_parameters": 1,
            "layers": "[]",
            "recipe_hash": self.recipe.factor_hash,
        }
        self.write(CHECKPOINTS, {"checkpoint": name}, [row])

    def scores(
        self,
        checkpoint: str,
        rankings: Rankings,
        *,
        losses: Mapping[str, float] | None = None,
        stored: int | None = None,
        version: str | None = None,
        recipe: Recipe | None = None,
        query_set: str = QUERY_SET,
        relative: Rankings | None = None,
    ) -> None:
        """Store scores: `stored` of both ends of each ranking, or all of it; `losses` are per token, of two tokens.

        `relative` are the proponents by relative influence, where they are stored.
        """
        constants = {
            "recipe_hash": (recipe or self.recipe).score_hash,
            "computed_from": version or self.current_version(checkpoint),
        }
        sides = {"all": (None, 1)} if stored is None else {"highest": (stored, 1), "lowest": (stored, -1)}
        rows = [
            {
                "query_id": query,
                "side": side,
                "rank": rank,
                "example_id": name,
                "shard": SHARD,
                "score": 1.0,
                **constants,
            }
            for query, ranking in rankings.items()
            for side, (kept, direction) in sides.items()
            for rank, name in enumerate(ranking[::direction][:kept], start=1)
        ]
        summaries = [
            {"query_id": query, "loss": 2 * (losses or {}).get(query, 1.0), "n_target_tokens": 2, **constants}
            for query in rankings
        ]
        partition = {"checkpoint": checkpoint, "query_set": query_set}
        self.write(QUERY_SCORES, partition, rows)
        leading = [
            {"query_id": query, "side": "highest", "rank": rank, "example_id": name, "shard": SHARD, **constants}
            for query, ranking in (relative or {}).items()
            for rank, name in enumerate(ranking, start=1)
        ]
        if leading:
            self.write(RELATIVE_SCORES, partition, leading)
        self.write(QUERY_SUMMARIES, partition, summaries)

    def current_version(self, checkpoint: str) -> str:
        """The version of scores that were computed from what the lake holds now."""
        record = checkpoint_record(self.lake, checkpoint, self.recipe)
        shards = dict(self.lake.read(TRAINING_EXAMPLES, ["shard", "shard_hash"]).unique().iter_rows())
        (query_hash,) = self.lake.read(QUERY_EXAMPLES, ["query_set_hash"], query_set=QUERY_SET).unique().to_series()
        return score_version(self.recipe, record, shards, query_hash, {})
