"""Influcoder's encoder: a text encoder whose embedding cosines reproduce a checkpoint's influences."""

import time
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, Wait, attribution_asset
from lorif_assets.assets.influence_targets import influence_targets
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.attribution.stored.versions import encoder_version
from lorif_assets.freshness.influcoder import stale_encoders
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.sampling import Split
from lorif_assets.influcoder.stored import StoredEncoder, encoder_base_version, encoder_row, stored_targets
from lorif_assets.lake.influcoder_tables import INFLUCODER_ENCODERS
from lorif_assets.project import Project
from lorif_assets.scratch_folders import scratch_folder
from lorif_assets.tracking.tracked_run import TrackedRun

if TYPE_CHECKING:
    from lorif_assets.influcoder.encoder import TextEncoder
    from lorif_assets.mathematics.influcoder.distillation import StepLoss


@attribution_asset(
    group="influcoder",
    table=INFLUCODER_ENCODERS,
    partitions=partitions.checkpoints,
    # Targets keep their sample while data change.
    inputs=[Input(influence_targets, wait=Wait.FOR_IT_ALONE)],
    find_stale=stale_encoders,
    is_used=lambda settings: settings.influcoder.enabled,
    on_device=True,
    kinds={"torch", "mlflow"},
)
def influcoder_encoder(run: PartitionRun) -> Materializations:
    """A bi-encoder distilled from one checkpoint's influence targets; a new checkpoint's training continues the last one's."""
    require_influcoder()
    from lorif_assets.influcoder.training import load_base, train_encoder

    settings, lake, chosen = run.settings, run.lake, run.settings.influcoder
    for name in run.partitions:
        targets = stored_targets(lake, run.stored(name).record, chosen, settings.recipe)
        # Before it is read: a write in the meantime changes it.
        base_version = encoder_base_version(settings)
        previous = _previous_encoder(name, run.project) if chosen.warm_start else None
        with run.lease() as group, run.tracked(name, [name], chosen.model_dump()) as tracked:
            encoder = (
                previous.load(lake, chosen, group.first).with_heads(chosen.heads)
                if previous
                else load_base(settings, group.first)
            )
            started = time.monotonic()
            losses = train_encoder(encoder, targets, *targets.of_split(Split.DISTIL), chosen.distillation(chosen.seed))
            seconds = time.monotonic() - started
            if tracked:
                _track(tracked, encoder, losses)
        weights = encoder.content_hash()
        uri = lake.write_named_file(f"encoders/{name}/{weights}", ".zip", encoder.archive())
        final_loss = fmean(step.total for step in losses[-(len(losses) // chosen.epochs) :])
        row = {
            "checkpoint": name,
            "uri": uri,
            "base": chosen.encoder,
            "base_version": base_version,
            "started_from": previous.checkpoint if previous else None,
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
        yield from run.commit(
            name,
            weights,
            {
                "started_from": previous.checkpoint if previous else chosen.encoder,
                "width": encoder.width,
                "steps": len(losses),
                "first_loss": losses[0].total,
                "final_loss": final_loss,
                "seconds": seconds,
            },
        )


def _previous_encoder(name: str, project: Project) -> StoredEncoder | None:
    """Return the newest encoder of a checkpoint before this one that was first trained from the same base."""
    earlier = [checkpoint.name for checkpoint in project.checkpoints.find()]
    earlier = earlier[: earlier.index(name)] if name in earlier else []
    base_version = encoder_base_version(project.settings)
    rows = {
        row["checkpoint"]: row
        for row in project.lake.read(INFLUCODER_ENCODERS).to_dicts()
        if row["base"] == project.settings.influcoder.encoder and row["base_version"] in {None, base_version}
    }
    return next((encoder_row(rows[checkpoint]) for checkpoint in reversed(earlier) if checkpoint in rows), None)


def _track(run: TrackedRun, encoder: "TextEncoder", losses: "Sequence[StepLoss]") -> None:
    """Log the loss curves, and the encoder as a model that MLflow can load."""
    import mlflow
    import sentence_transformers

    for step, loss in enumerate(losses):
        run.metrics({"loss": loss.total, "loss_pearson": loss.pearson, "loss_kl": loss.kl}, step)
    with scratch_folder() as folder:
        path = folder / "encoder"
        mlflow.sentence_transformers.save_model(
            encoder.model,
            str(path),
            # Otherwise MLflow would start a process to find them out.
            pip_requirements=[f"sentence-transformers=={sentence_transformers.__version__}"],
        )
        run.folder(path, "encoder")
