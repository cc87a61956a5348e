"""Influcoder's encoder: a text encoder whose embedding cosines reproduce a checkpoint's influences."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.influence_targets import influence_targets
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.model import checkpoint_record
from lorif_assets.attribution.versions import encoder_version
from lorif_assets.config.settings import Settings
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.sampling import Split
from lorif_assets.influcoder.stored import StoredEncoder, encoder_row, stored_targets
from lorif_assets.lake.influcoder_tables import INFLUCODER_ENCODERS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices
from lorif_assets.tracking import TrackedRun, Tracking

if TYPE_CHECKING:
    from lorif_assets.influcoder.encoder import TextEncoder
    from lorif_assets.mathematics.influcoder.distillation import StepLoss


@dg.asset(
    group_name="influcoder",
    partitions_def=partitions.checkpoints,
    deps=[influence_targets],
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "mlflow"},
    metadata=table_metadata(INFLUCODER_ENCODERS),
)
def influcoder_encoder(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """A bi-encoder distilled from one checkpoint's influence targets; a new checkpoint's goes on from the one before."""
    require_influcoder()
    from lorif_assets.influcoder.training import load_base, train_encoder

    commits = PartitionCommits(context)
    chosen = settings.influcoder
    for name in context.partition_keys:
        record = checkpoint_record(lake, name, settings.recipe)
        targets = stored_targets(lake, record, chosen, settings.recipe)
        before = _encoder_before(name, settings, lake, model_checkpoints) if chosen.warm_start else None
        tags = {"dagster.run_id": context.run_id, "dagster.partition": name}
        with (
            devices.lease() as group,
            tracking.materialization(name, "influcoder_encoder", tags, chosen.model_dump()) as run,
        ):
            encoder = (
                before.load(lake, chosen, group.first).with_heads(chosen.heads)
                if before
                else load_base(settings, group.first)
            )
            started = time.monotonic()
            losses = train_encoder(encoder, targets, *targets.of_split(Split.DISTIL), chosen.distillation(chosen.seed))
            seconds = time.monotonic() - started
            if run:
                _track(run, encoder, losses)
        weights = encoder.content_hash()
        uri = f"encoders/{name}/{weights}.zip"
        lake.write_file(uri, encoder.archive())
        final_loss = fmean(step.total for step in losses[-(len(losses) // chosen.epochs) :])
        row = {
            "checkpoint": name,
            "uri": uri,
            "base": chosen.encoder,
            "started_from": before.checkpoint if before else None,
            "width": encoder.width,
            "encoder_hash": weights,
            "steps": len(losses),
            "final_loss": final_loss,
            "seconds": seconds,
            "recipe_hash": chosen.distillation_hash(settings.recipe),
            "computed_from": encoder_version(chosen.distillation_hash(settings.recipe), targets.version),
        }
        lake.replace(
            INFLUCODER_ENCODERS, {"checkpoint": name}, pa.Table.from_pylist([row], schema=INFLUCODER_ENCODERS.columns)
        )
        yield from commits.commit(
            name,
            weights,
            {
                "started_from": before.checkpoint if before else chosen.encoder,
                "width": encoder.width,
                "steps": len(losses),
                "first_loss": losses[0].total,
                "final_loss": final_loss,
                "seconds": seconds,
            },
        )


def _encoder_before(name: str, settings: Settings, lake: Lake, model_checkpoints: Checkpoints) -> StoredEncoder | None:
    """Return the newest encoder of a checkpoint before this one that was first trained from the same base."""
    earlier = [checkpoint.name for checkpoint in model_checkpoints.find()]
    earlier = earlier[: earlier.index(name)] if name in earlier else []
    rows = {
        row["checkpoint"]: row
        for row in lake.read(INFLUCODER_ENCODERS).to_dicts()
        if row["base"] == settings.influcoder.encoder
    }
    return next((encoder_row(rows[checkpoint]) for checkpoint in reversed(earlier) if checkpoint in rows), None)


def _track(run: TrackedRun, encoder: "TextEncoder", losses: "Sequence[StepLoss]") -> None:
    """Log the loss curves, and the encoder as a model that MLflow can load."""
    import mlflow
    import sentence_transformers

    for step, loss in enumerate(losses):
        run.metrics({"loss": loss.total, "loss_pearson": loss.pearson, "loss_kl": loss.kl}, step)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "encoder")
        mlflow.sentence_transformers.save_model(
            encoder.model,
            str(path),
            # Given, MLflow need not start a process that finds them out.
            pip_requirements=[f"sentence-transformers=={sentence_transformers.__version__}"],
        )
        run.folder(path, "encoder")
