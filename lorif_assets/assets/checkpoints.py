"""Checkpoints: fingerprints of weights and tokenizer, and which layers are tracked. The weights stay where they are."""

import json
from typing import Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.partition_run import Failures, PartitionRun
from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe
from lorif_assets.attribution.recipes.recipe_on_model import tracked_layers
from lorif_assets.attribution.stored.versions import checkpoint_version
from lorif_assets.errors import LorifError
from lorif_assets.freshness.attribution import stale_checkpoints
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.models.files.unread_weights import unread_notes
from lorif_assets.models.files.weight_files import in_short


@attribution_asset(
    group="checkpoints",
    table=CHECKPOINTS,
    partitions=partitions.checkpoints,
    find_stale=stale_checkpoints,
    kinds={"transformers", "deltalake"},
)
def checkpoints(run: PartitionRun) -> Materializations:
    """A checkpoint of the model in training: what it is, and the layers whose gradients are attributed."""

    failures = Failures(run.log, "checkpoints", len(run.partitions), "the next checkpoint")
    for name in run.partitions:
        try:
            version, metadata = _recorded(run, name)
        except LorifError as error:
            failures.add(name, error)
            continue
        yield from run.commit(name, version, metadata)
    failures.raise_cause_or_all()


def _recorded(run: PartitionRun, name: str) -> tuple[str, dict[str, Any]]:
    """Record a checkpoint, and return its data version and metadata."""
    recipe = run.settings.recipe
    files = run.checkpoints.get(name)
    # Before the bytes are read: a write in the meantime changes it.
    files_version = files.version()
    skeleton = run.checkpoints.skeleton(files, track=recipe.track)
    tracked = tracked_layers(skeleton, recipe)
    projection = fitted_recipe(recipe, tracked).projection
    layers: list[dict[str, str | int]] = [
        {
            "layer": layer.name,
            "d_in": layer.d_in,
            "d_out": layer.d_out,
            "d1": projection.width(layer.d_in),
            "d2": projection.width(layer.d_out),
        }
        for layer in tracked
    ]
    row = {
        "checkpoint": name,
        "uri": str(files.path),
        "step": files.step,
        "weights_hash": files.weights_hash(),
        "tokenizer_hash": files.tokenizer_hash(),
        "model_type": skeleton.config.model_type,
        "n_parameters": skeleton.num_parameters(),
        "layers": json.dumps(layers),
        "recipe_hash": recipe.factor_hash,
        "files_version": files_version,
    }
    for note in unread_notes([files]):
        run.log.warning(note)
    run.lake.replace(CHECKPOINTS, {"checkpoint": name}, pa.Table.from_pylist([row], schema=CHECKPOINTS.columns))
    run.add_partitions(partitions.LAYERS_NAME, [str(layer["layer"]) for layer in layers])
    return checkpoint_version(str(row["weights_hash"]), str(row["tokenizer_hash"]), layers), {
        "path": dg.MetadataValue.path(str(files.path)),
        **({"base_model": dg.MetadataValue.path(str(files.base.path))} if files.adapter else {}),
        "loaded_from": in_short([file.name for file in files.base.taken_files]),
        **({"unread_weights": ", ".join(unread)} if (unread := files.unread_files) else {}),
        "step": files.step,
        "model_type": row["model_type"],
        "parameters": row["n_parameters"],
        "weights_hash": row["weights_hash"],
        "tracked_layers": len(layers),
        "layers": dg.MetadataValue.table([dg.TableRecord(layer) for layer in layers]),
    }
