"""What the lake says of a checkpoint: its row in `checkpoints`, with the bases that its gradients are whitened in."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from lorif_assets.attribution.stored.bases import FrozenBases, bases_version, frozen_bases
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import MismatchError
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.lake.file_samples import is_same_version
from lorif_assets.lake.lake import Lake
from lorif_assets.models.files.checkpoint_files import CheckpointFiles


@dataclass(frozen=True)
class CheckpointRecord:
    """What the table `checkpoints` says of one checkpoint, under the current recipe."""

    name: str
    weights_hash: str
    tokenizer_hash: str
    model_type: str
    n_parameters: int
    step: int | None
    layer_shapes: dict[str, tuple[int, int]]
    """(d1, d2) of each tracked layer, in the model's order."""
    frozen_bases: FrozenBases | None = None
    """The bases that gradients are whitened in; None without whitening, and before they are fitted."""
    files_version: str | None = None
    """The files' names, sizes, times and samples when they were hashed, as hashes; None if that was not recorded."""

    @property
    def bases_fingerprint(self) -> str:
        """The fingerprint of the bases; empty if there are none."""
        return self.frozen_bases.fingerprint if self.frozen_bases else ""

    def refuse_other_files(self, files: CheckpointFiles) -> None:
        """Refuse files whose bytes are not those recorded; of files with the same sizes and times, samples alone are read.

        Raises:
            MismatchError: weights or tokenizer changed.
        """
        if self.files_version is not None and is_same_version(self.files_version, files.version()):
            return
        for what, then, now in (
            ("weights", self.weights_hash, files.weights_hash()),
            ("tokenizer", self.tokenizer_hash, files.tokenizer_hash()),
        ):
            if then != now:
                raise MismatchError(
                    f"the {what} of checkpoint {self.name!r} in {files.path} changed since it was recorded ({then} then, "
                    f"{now} now); materialize `checkpoints` again, then what depends on it"
                )

    def decoded_numbers(self, recipe: Recipe) -> dict[str, int]:
        """Return the numbers of one example's factors in each layer under a recipe, once they are decoded."""
        ranks = self.frozen_bases.ranks if self.frozen_bases else {}
        return {
            layer: min(ranks.get(layer, recipe.rank), d1, d2) * (d1 + d2)
            for layer, (d1, d2) in self.layer_shapes.items()
        }

    def refuse_other_layers(self, layers: Iterable[str]) -> None:
        """Refuse layers that the checkpoint does not have.

        Raises:
            MismatchError: one is among them.
        """
        unknown = set(layers) - self.layer_shapes.keys()
        if unknown:
            raise MismatchError(
                f"the checkpoint {self.name!r} has no tracked layer {min(unknown)!r}; partitions of layers are those of all "
                "checkpoints together. Choose this checkpoint's own layers"
            )


def checkpoint_record(lake: Lake, name: str, recipe: Recipe) -> CheckpointRecord:
    """Read a checkpoint's row.

    Raises:
        MismatchError: there is none, or it was written with other settings for layers or projection.
    """
    rows = lake.read(CHECKPOINTS, checkpoint=name).to_dicts()
    if not rows:
        raise MismatchError(
            f"the checkpoint {name!r} is not in the table `checkpoints`; materialize `checkpoints` first"
        )
    row = rows[0]
    if row["recipe_hash"] != recipe.factor_hash:
        raise MismatchError(
            f"the checkpoint {name!r} was recorded under the factor recipe {row['recipe_hash']}, but the settings are now "
            f"{recipe.factor_hash}; materialize `checkpoints` again, then what depends on it"
        )
    bases = frozen_bases(lake, name, recipe, bases_version(recipe, row["weights_hash"], row["tokenizer_hash"]))
    shapes = {layer["layer"]: (layer["d1"], layer["d2"]) for layer in json.loads(row["layers"])}
    if bases:
        # In place of those planned: the widths that were measured best.
        shapes = {layer: bases.shapes[layer] for layer in shapes}
    return CheckpointRecord(
        name=name,
        weights_hash=row["weights_hash"],
        tokenizer_hash=row["tokenizer_hash"],
        model_type=row["model_type"],
        n_parameters=row["n_parameters"],
        step=row["step"],
        layer_shapes=shapes,
        frozen_bases=bases,
        files_version=row["files_version"],
    )
