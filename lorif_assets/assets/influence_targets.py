"""Influence targets: the influences between a sample of queries and examples that the encoder learns to reproduce."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, Wait, attribution_asset
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.example_metadata import rejected_metadata
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.preconditioners import PRECONDITIONERS
from lorif_assets.assets.query_examples import query_examples
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.stored.versions import target_version
from lorif_assets.config.settings import Settings
from lorif_assets.data.rows.rejected import replace_rejected
from lorif_assets.data.tokens.tokenization import TokenizedShard
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.subset_teacher import SubsetTeacher
from lorif_assets.freshness.influcoder import stale_targets
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.sampling import Role, SampledText, Split, draw_sample
from lorif_assets.influcoder.teachers import gradient_cosines, lorif_ranks
from lorif_assets.influcoder.text_views import anchor_text, pool_text
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import INFLUENCE_TARGETS
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    import torch


def _scores(settings: Settings) -> bool:
    """Whether the teacher scores by what the lake holds of the checkpoint."""
    return settings.influcoder.teacher == "lorif"


@attribution_asset(
    group="influcoder",
    table=INFLUENCE_TARGETS,
    partitions=partitions.checkpoints,
    inputs=[
        checkpoints,
        Input(training_examples, partitions.every()),
        # A query file that cannot be read must not keep an encoder from being trained.
        Input(query_examples, partitions.every(), Wait.NEVER),
        # Under another teacher too, the devices are for scores first.
        *(
            Input(asset, partitions.whole_checkpoint(), is_dependency=False, is_read=_scores)
            for asset in (gradient_factors, *PRECONDITIONERS)
        ),
    ],
    find_stale=stale_targets,
    is_used=lambda settings: settings.influcoder.enabled,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def influence_targets(run: PartitionRun) -> Materializations:
    """Influences of sampled examples (the pool) on sampled queries (the anchors) at one checkpoint.

    By cosine of their sketched LoRA gradients; with `influcoder.teacher = "lorif"` by LoRIF score, which needs the
    checkpoint's factors and preconditioners; or with "subset_losses" by the losses of models retrained on subsets.
    """
    require_influcoder()
    settings, lake, chosen = run.settings, run.lake, run.settings.influcoder
    losses = _subset_teacher(settings, lake) if chosen.teacher == "subset_losses" else None
    for name in run.partitions:
        with run.lease() as group, run.tracked(name, [name], chosen.model_dump()) as tracked:
            checkpoint = run.stored(name).load(run.checkpoints, group)
            attributed = checkpoint.model
            drawn = draw_sample(lake, chosen, attributed.tokenizer.decode, losses.queries if losses else None)
            sampled, tokenized = _usable(attributed, drawn)
            replace_rejected(lake, "influence_targets", name, tokenized.rejected)
            examples = tokenized.examples
            n_anchors = sum(one.role is Role.ANCHOR for one in sampled)
            anchors, pool = examples[:n_anchors], examples[n_anchors:]
            started = time.monotonic()
            if losses:
                targets = losses.ranks(sampled[:n_anchors], sampled[n_anchors:])
            elif chosen.teacher == "lorif":
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
                "losses_from": losses.version if losses else None,
            }
            version = target_version(
                str(constants["recipe_hash"]),
                record.weights_hash,
                record.tokenizer_hash,
                [*(one.row["content_hash"] for one in sampled), *([str(losses.version)] if losses else [])],
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
            if tracked:
                tracked.metrics(figures)
            # Before another run gets the devices: the memory is not free while a name refers to the model.
            del checkpoint, attributed
        yield from run.commit(
            name,
            version,
            {
                "dagster/row_count": rows.num_rows,
                "teacher": chosen.teacher,
                "anchors_from": "examples" if "shard" in sampled[0].row else "query sets",
                "left_out": len(drawn) - len(sampled),
                **rejected_metadata(tokenized.rejected, tokenized.notices),
                **figures,
            },
        )


def _subset_teacher(settings: Settings, lake: Lake) -> SubsetTeacher:
    """Return the losses of the evaluation's retrained models.

    Raises:
        MismatchError: there are too few.
    """
    teacher = SubsetTeacher.of(settings, lake)
    if teacher.version is None:
        raise MismatchError(
            '`influcoder.teacher = "subset_losses"` learns from models that the evaluation retrains, and no query set has the '
            "losses of three of them; run `lorif evaluate`, or materialize `subset_losses`, first"
        )
    return teacher


def _usable(attributed: AttributedModel, sampled: Sequence[SampledText]) -> "tuple[list[SampledText], TokenizedShard]":
    """Tokenize a sample, and leave out what this tokenizer cannot use: listed by the ids and rows of the lake."""
    schema = pa.schema([*_CONTENT, pa.field("example_id", pa.string()), pa.field("row", pa.int64())])
    rows = pa.Table.from_pylist(
        [
            {**{field.name: one.row[field.name] for field in _CONTENT}, "example_id": str(index), "row": index}
            for index, one in enumerate(sampled)
        ],
        schema=schema,
    )
    # Anchors come first, and are queries or training examples.
    n_queries = sum("shard" not in one.row for one in sampled)
    queries = attributed.tokenized_queries(rows.slice(0, n_queries), "example_id")
    others = attributed.tokenized(rows.slice(n_queries))
    rejected = pl.concat([pl.DataFrame(queries.rejected), pl.DataFrame(others.rejected)])
    left_out = [sampled[index] for index in rejected["row"].to_list()]
    rejected = rejected.with_columns(
        pl.Series("example_id", [one.example_id for one in left_out], pl.String),
        pl.Series("row", [one.row["row"] for one in left_out], pl.Int64),
    )
    tokenized = TokenizedShard((*queries.examples, *others.examples), rejected.to_arrow())
    return [sampled[example.row] for example in tokenized.examples], tokenized


_CONTENT = [
    field
    for field in TRAINING_EXAMPLES.columns
    if field.name in {"format", "text", "prompt", "completion", "messages", "input_ids", "labels"}
]


def _rows(
    sampled: Sequence[SampledText], targets: "torch.Tensor", attributed: AttributedModel, constants: dict[str, Any]
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
