"""A checkpoint's K-FAC bases in the lake: fitted once, then frozen, because every stored factor is written in them.

Their version depends on recipe, weights and tokenizer, not on the data: new or edited examples leave them as they are.
They are fitted again when the recipe or the checkpoint changes, or an optimiser's state that the curvature reads, or when
`kfac_bases` is materialized with `recompute`.
Factors carry the fingerprint of the bases that they are written in, so that a new fit puts them out of date.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import KFAC_BASES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.training.optimizer_states import optimizer_version

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases


@dataclass(frozen=True)
class FrozenBases:
    """The bases of all tracked layers of one checkpoint: a fingerprint of them all, ranks and files by layer."""

    fingerprint: str
    ranks: Mapping[str, int]
    uris: Mapping[str, str]
    damping: float
    whitening_rank: int | None = None
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(d1, d2) of each layer."""
    max_width: int | None = None
    """The largest width, where it was measured; None where recipe and shapes decide it."""
    optimizer: str | None = None
    """The version of the optimiser's state that they were fitted with; None where none is read, or it was not recorded."""

    def has_other_state(self, folder: Path) -> bool:
        """Whether the optimiser's state in a checkpoint's folder is another one than that of these bases.

        One that was deleted since is none: what was made of it stays true.
        """
        return self.optimizer is not None and optimizer_version(folder) not in {None, self.optimizer}

    def load(self, lake: Lake, layer: str, device: "torch.device") -> "KfacBases":
        """Return one layer's bases.

        Raises:
            TableError: their file is gone.
        """
        from lorif_assets.mathematics.curvature.kfac_bases import KfacBases

        return KfacBases.from_tensors(lake.read_tensors(self.uris[layer]), self.damping, device, self.whitening_rank)


def bases_version(recipe: Recipe, weights_hash: str, tokenizer_hash: str) -> str:
    """Return the version of a checkpoint's bases."""
    return content_hash([recipe.factor_hash, weights_hash, tokenizer_hash])


def frozen_bases(lake: Lake, checkpoint: str, recipe: Recipe, version: str) -> FrozenBases | None:
    """Return a checkpoint's bases of a version, or None if there are none or the recipe's curvature needs none."""
    if not recipe.whitens:
        return None
    columns = ["layer", "d1", "d2", "rank", "uri", "fingerprint", "version", "max_width", "optimizer"]
    rows = lake.read(KFAC_BASES, columns, checkpoint=checkpoint)
    if rows.is_empty() or set(rows["version"]) != {version}:
        return None
    return FrozenBases(
        rows["fingerprint"][0],
        dict(zip(rows["layer"], rows["rank"], strict=True)),
        dict(zip(rows["layer"], rows["uri"], strict=True)),
        recipe.whitening_damping,
        recipe.whitening_rank,
        {layer: (d1, d2) for layer, d1, d2 in rows.select("layer", "d1", "d2").iter_rows()},
        rows["max_width"][0],
        rows["optimizer"][0],
    )
