"""Checkpoints: fingerprints of weights and tokenizer, and which layers are tracked. The weights stay where they are."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.config.recipe import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints


@dg.asset(
    group_name="checkpoints",
    partitions_def=partitions.checkpoints,
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    code_version="1",
    owners=OWNERS,
    kinds={"transformers", "deltalake"},
    metadata=table_metadata(CHECKPOINTS),
)
def checkpoints(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
) -> Iterator[dg.MaterializeResult[Any]]:
    """A checkpoint of the model in training: what it is, and the layers whose gradients are attributed."""
    from lorif_assets.mathematics.gradients.layers import select_layers
    from lorif_assets.mathematics.gradients.projection import projected_width

    commits = PartitionCommits(context)
    recipe = settings.recipe
    for name in context.partition_keys:
        files = model_checkpoints.get(name)
        # Before the bytes are read: what is written meanwhile changes it.
        files_version = files.version()
        skeleton = model_checkpoints.skeleton(files)
        layers: list[dict[str, str | int]] = [
            {
                "layer": layer.name,
                "d_in": layer.d_in,
                "d_out": layer.d_out,
                "d1": projected_width(layer.d_in, recipe.projection_factor, recipe.max_width),
                "d2": projected_width(layer.d_out, recipe.projection_factor, recipe.max_width),
            }
            for layer in select_layers(skeleton, recipe.include_layers, recipe.exclude_layers)
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
        lake.replace(CHECKPOINTS, {"checkpoint": name}, pa.Table.from_pylist([row], schema=CHECKPOINTS.columns))
        context.instance.add_dynamic_partitions(partitions.LAYERS_NAME, [str(layer["layer"]) for layer in layers])
        # Another choice of layers is another checkpoint to what comes after; another step name is not.
        version = content_hash([row["weights_hash"], row["tokenizer_hash"], layers])
        yield from commits.commit(
            name,
            version,
            {
                "path": dg.MetadataValue.path(str(files.path)),
                "step": files.step,
                "model_type": row["model_type"],
                "parameters": row["n_parameters"],
                "weights_hash": row["weights_hash"],
                "tracked_layers": len(layers),
                "layers": dg.MetadataValue.table([dg.TableRecord(layer) for layer in layers]),
            },
        )
