"""Influence targets: the influences between a sample of queries and examples that the encoder learns to reproduce."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.corpus import query_examples, training_examples
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.checkpoint import StoredCheckpoint
from lorif_assets.attribution.model import AttributedModel
from lorif_assets.attribution.versions import target_version
from lorif_assets.config.settings import Settings
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.sampling import Role, Sampled, Split, draw_sample
from lorif_assets.influcoder.teachers import gradient_cosines, lorif_ranks
from lorif_assets.influcoder.text_views import anchor_text, pool_text
from lorif_assets.lake.attribution_tables import TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import INFLUENCE_TARGETS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices
from lorif_assets.tracking import Tracking

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokenization import TokenizedExample


@dg.asset(
    group_name="influcoder",
    partitions_def=partitions.checkpoints,
    deps=[
        checkpoints,
        dg.AssetDep(training_examples, partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep(query_examples, partition_mapping=dg.AllPartitionMapping()),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(INFLUENCE_TARGETS),
)
def influence_targets(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Influences of sampled examples (the pool) on sampled queries (the anchors) at one checkpoint.

    By cosine of their sketched LoRA gradients or, with `influcoder.teacher = "lorif"`, by LoRIF score, which needs the
    checkpoint's factors and preconditioners.
    """
    require_influcoder()
    commits = PartitionCommits(context)
    chosen = settings.influcoder
    for name in context.partition_keys:
        tags = {"dagster.run_id": context.run_id, "dagster.partition": name}
        with (
            devices.lease() as group,
            tracking.materialization(name, "influence_targets", tags, chosen.model_dump()) as run,
        ):
            checkpoint = StoredCheckpoint.read(lake, name, settings.recipe).load(model_checkpoints, group)
            attributed = checkpoint.model
            drawn = draw_sample(lake, chosen, attributed.tokenizer.decode)
            sampled, examples = _usable(attributed, drawn)
            n_anchors = sum(one.role is Role.ANCHOR for one in sampled)
            anchors, pool = examples[:n_anchors], examples[n_anchors:]
            started = time.monotonic()
            if chosen.teacher == "lorif":
                stored = [(one.source, one.example_id) for one in sampled[n_anchors:]]
                targets = lorif_ranks(checkpoint, anchors, stored, settings.batch)
            else:
                targets = gradient_cosines(attributed, anchors, pool, chosen, settings.batch.tokens)
            seconds = time.monotonic() - started
            record = attributed.record
            constants = {
                "checkpoint": name,
                "teacher": chosen.teacher,
                "corpus_size": lake.read(TRAINING_EXAMPLES, ["shard"]).height,
                "seconds": seconds,
                "recipe_hash": chosen.targets_hash(settings.recipe),
                "weights_hash": record.weights_hash,
                "tokenizer_hash": record.tokenizer_hash,
            }
            version = target_version(
                str(constants["recipe_hash"]),
                record.weights_hash,
                record.tokenizer_hash,
                [one.row["content_hash"] for one in sampled],
            )
            rows = _rows(sampled, targets, attributed, {**constants, "computed_from": version})
            lake.replace(INFLUENCE_TARGETS, {"checkpoint": name}, rows)
            figures = {
                "anchors": n_anchors,
                "pool": len(pool),
                "held_out": sum(one.split is Split.HELD_OUT for one in sampled),
                "target_mean": float(targets.mean()),
                "target_std": float(targets.std()),
                "seconds": seconds,
                "milliseconds_per_text": 1e3 * seconds / len(examples),
            }
            if run:
                run.metrics(figures)
            # Before the devices are another's: the memory is not free while a name holds the model.
            del checkpoint, attributed
        yield from commits.commit(
            name,
            version,
            {
                "dagster/row_count": rows.num_rows,
                "teacher": chosen.teacher,
                "anchors_from": "examples" if "shard" in sampled[0].row else "query sets",
                "left_out": len(drawn) - len(sampled),
                **figures,
            },
        )


def _usable(
    attributed: AttributedModel, sampled: Sequence[Sampled]
) -> "tuple[list[Sampled], Sequence[TokenizedExample]]":
    """Tokenize a sample, and leave out what this tokenizer cannot use."""
    rows = [
        {**{field.name: one.row[field.name] for field in _CONTENT}, "example_id": str(index), "row": index}
        for index, one in enumerate(sampled)
    ]
    schema = pa.schema([*_CONTENT, pa.field("example_id", pa.string()), pa.field("row", pa.int64())])
    tokenized = attributed.tokenized(pa.Table.from_pylist(rows, schema=schema))
    return [sampled[example.row] for example in tokenized.examples], tokenized.examples


_CONTENT = [
    field
    for field in TRAINING_EXAMPLES.columns
    if field.name in {"format", "text", "prompt", "completion", "messages", "input_ids", "labels"}
]


def _rows(
    sampled: Sequence[Sampled], targets: "torch.Tensor", attributed: AttributedModel, constants: dict[str, Any]
) -> pa.Table:
    influences = [*targets.tolist(), *([None] * targets.shape[1])]
    positions = [*range(targets.shape[0]), *range(targets.shape[1])]
    rows = [
        {
            "role": one.role.value,
            "split": one.split.value,
            "position": position,
            "source": one.source,
            "example_id": one.example_id,
            "content_hash": one.row["content_hash"],
            "text": (anchor_text if one.role is Role.ANCHOR else pool_text)(one.row, attributed.tokenizer.decode),
            "targets": influence,
            **constants,
        }
        for one, position, influence in zip(sampled, positions, influences, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=INFLUENCE_TARGETS.columns)
