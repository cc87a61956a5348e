"""Many shards of gradient factors quickly: the lake writes one, the others are copies of its file with commits of their own.

A file's rows do not hold its checkpoint and shard, which are in its path and in the table's log: a copy under another path is
what the lake would have written for another shard, but that names and hashes of its examples repeat.
"""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from deltalake.transaction import AddAction

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.mathematics.factors.codec import FactorCodec, encode
from lorif_assets.mathematics.factors.low_rank import GradientFactors

SHARD_HASH = "h" * 32


def shard_name(number: int) -> str:
    """Return the name of a shard."""
    return f"source-{number:05d}"


def random_rows(record: CheckpointRecord, recipe: Recipe, shard: str, n: int) -> pa.Table:
    """Return the rows of a shard of random factors."""
    codec, generator = FactorCodec(recipe.factor_dtype), torch.Generator().manual_seed(0)

    def random_bytes(d1: int, d2: int) -> pa.Array:
        u, v = (torch.randn(n, d, recipe.rank, generator=generator) for d in (d1, d2))
        return pa.array([row.tobytes() for row in encode(GradientFactors(u, v), codec).numpy()], pa.large_binary())

    constants = {
        "checkpoint": record.name,
        "shard": shard,
        "recipe_hash": recipe.factor_hash,
        "weights_hash": record.weights_hash,
        "tokenizer_hash": record.tokenizer_hash,
        "projection": "p" * 32,
        "shard_hash": SHARD_HASH,
        "factor_codec": recipe.factor_dtype,
        "bases": "",
        "fisher": "",
    }
    return pa.table(
        {
            "example_id": [f"{shard}/{row}" for row in range(n)],
            "row": pa.array(range(n), pa.int64()),
            "loss": pa.array(np.linspace(1, 2, n), pa.float32()),
            "n_target_tokens": pa.array(range(n), pa.int32()),
            "truncated": [False] * n,
            **{name: [value] * n for name, value in constants.items()},
            **{layer: random_bytes(*shape) for layer, shape in record.layer_shapes.items()},
        }
    )


def write_shards(lake: Lake, record: CheckpointRecord, recipe: Recipe, shards: int, rows: int, per_commit: int) -> None:
    """Write shards of `rows` random examples each, `per_commit` copies to a commit."""
    partition = {"checkpoint": record.name, "shard": shard_name(0)}
    lake.replace(GRADIENT_FACTORS, partition, random_rows(record, recipe, shard_name(0), rows))
    copy_shard(lake, GRADIENT_FACTORS, partition, shards, per_commit)


def copy_shard(lake: Lake, schema: TableSchema, partition: Mapping[str, str], shards: int, per_commit: int) -> None:
    """Make a table's newest file, which is all that it has, of the first shard, the first of so many shards."""
    table, first = lake.table(schema), shard_name(0)
    if table is None:
        raise FileNotFoundError(lake.uri(schema))
    root = Path(lake.uri(schema))
    entries = [
        json.loads(line)
        for log in sorted((root / "_delta_log").glob("*.json"))
        for line in log.read_text().splitlines()
    ]
    *_, added = [entry["add"] for entry in entries if "add" in entry]
    for start in range(1, shards, per_commit):
        actions = []
        for number in range(start, min(start + per_commit, shards)):
            path = added["path"].replace(first, shard_name(number))
            (root / path).parent.mkdir(parents=True)
            shutil.copyfile(root / added["path"], root / path)
            values = {**partition, "shard": shard_name(number)}
            now = int(time.time() * 1000)
            actions.append(AddAction(path, added["size"], values, now, True, added["stats"]))
        table.create_write_transaction(actions, "append", table.schema(), list(schema.partition_by))
    if shards > 1:
        table.create_checkpoint()
