"""The curvatures that a recipe can name, and everything in which they differ on the lake.

To add one, write a class here, its mathematics in `mathematics/curvature`, and its name and fields in
`config/curvature_fields.py`. It may share the table of a curvature that stores the same columns, or have one of its own in
`lake/attribution_tables.py`; asset, check, report and trials follow from the class.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.attribution.stored.lake_curvature import (
    CurvatureCost,
    CurvatureTrials,
    LakeCurvature,
    LayerFigures,
    Soundness,
    SoundnessCheck,
)
from lorif_assets.attribution.stored.ledger import Ledger
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.curvature_fields import CURVATURE_FIELDS
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import EKFAC_PRECONDITIONERS, SVD_PRECONDITIONERS
from lorif_assets.lake.lake import FactorFile, Lake
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner
    from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature, FisherDiagonal
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
    from lorif_assets.mathematics.curvature.svd_curvature import SvdCurvature, SvdInverse
    from lorif_assets.mathematics.factors.low_rank import GradientFactors


_FEW_ROWS = 1_024
"""Examples that are read in less time than a thread takes to start and to be waited for."""


@dataclass(frozen=True)
class Svd(LakeCurvature):
    """Leading eigenpairs of the factorised gradients, kept up to date by reading the factors that changed."""

    table = SVD_PRECONDITIONERS
    reads_factors = True
    words = "state", "replaced factors"
    description = """A layer's curvature H = sum of g g^T over the factorised gradients: leading eigenpairs, trace and damping.

    With a curvature that is stored elsewhere there is nothing to do.
    """
    check = SoundnessCheck(
        "curvature_is_sound",
        "Eigenvectors are orthonormal; eigenvalues sorted, not negative, and no more than the trace.",
        "every layer's curvature is sound",
        deviation="largest_deviation",
    )
    is_refinable = True
    layer_figures = LayerFigures.SPECTRUM
    # Without a projection the eigenvectors of wide layers take gigabytes.
    trials = CurvatureTrials(
        values={"rank": (1, 4), "r": (64, 256), "damping": (0.1, 1.0, 3.0)},
        fixed={
            "damping_rule": "trace",
            "curvature_form": "tail_corrected",
            "refinements": 0,
            "factor_dtype": "bf16",
        },
    )

    @property
    def refinements(self) -> int:
        """Further passes over the data that improve its basis."""
        return self.recipe.refinements

    def state_version(self, factors: StoredFactors) -> str:
        """Return the hash of everything but the data that basis and image depend on."""
        recipe = self.recipe
        return content_hash(
            [recipe.factor_hash, recipe.basis_width, recipe.refinements, factors.weights_hash, factors.projection]
        )

    def ledger(self, factors: StoredFactors) -> Ledger:
        """Return the ledger of the shards' files of factors."""
        return Ledger.of(factors, {file.shard: file.path for file in factors.files})

    def parts(
        self, factors: StoredFactors, layer: str, files: Sequence[FactorFile], rows: int | None, device: "torch.device"
    ) -> "Iterator[GradientFactors]":
        """Yield the factors of files, in blocks."""
        blocks = factors.blocks([layer], rows, device, files)
        is_small = sum(file.rows for file in files) <= _FEW_ROWS
        for block in blocks if is_small else read_ahead(blocks):
            yield block[layer]

    def part(self, factors: "GradientFactors", sums: "FisherDiagonal | None") -> "GradientFactors":
        """Return the factors."""
        del sums
        return factors

    def empty(self, shape: tuple[int, int], bases: "KfacBases | None", device: "torch.device") -> "SvdCurvature":
        """Return the curvature of no examples, in a basis drawn with the recipe's seed."""
        from lorif_assets.mathematics.curvature.svd_curvature import SvdCurvature

        del bases
        d1, d2 = shape
        return SvdCurvature.empty(d1 * d2, self.recipe.basis_width, self.recipe.seed, self._inverse, device)

    def restored(
        self, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", bases: "KfacBases | None"
    ) -> "SvdCurvature":
        """Return a layer's state; its eigenvectors measure the drift of the data added to it."""
        from lorif_assets.mathematics.curvature.svd_curvature import SvdCurvature

        del bases
        return SvdCurvature.from_stored(tensors, row, self._inverse)

    def preconditioner(
        self, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", bases: "KfacBases | None"
    ) -> "LayerPreconditioner":
        """Return the inverse from the stored eigenpairs; computing them from the state takes long."""
        from lorif_assets.mathematics.curvature.svd_curvature import stored_spectrum

        del bases
        return self._inverse.of(stored_spectrum(tensors, row))

    def columns(
        self, curvature: "SvdCurvature", factors: StoredFactors, basis_version: str, refine_below: float
    ) -> dict[str, Any]:
        """Return the version of the basis, and whether it should be refined on the added data."""
        del factors
        return {
            "basis_version": basis_version,
            "needs_refine": curvature.measured_drift.is_below(refine_below),
        }

    @classmethod
    def soundness(cls, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", n_stored: int) -> Soundness:
        """Look at the stored spectrum and its vectors."""
        from lorif_assets.mathematics.curvature.svd_curvature import stored_spectrum

        del n_stored
        spectrum = stored_spectrum(tensors, row)
        return Soundness(spectrum.faults(), spectrum.deviation)

    def metrics(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Return the captured energy, the trace and the damping."""
        return {"captured_energy": row["captured_energy"], **super().metrics(row)}

    def remarks(self, row: Mapping[str, Any]) -> dict[str, float | bool]:
        """Return r, and how well the eigenvectors capture what they were fitted to and what was added."""
        energy = row["added_energy"]
        share = {"added_energy_share": row["added_energy_captured"] / energy} if energy else {}
        return {
            "r": row["r"],
            "fitted_energy": row["fitted_energy"],
            **share,
            "needs_refine": row["needs_refine"],
        }

    def cost(self, shapes: Sequence[tuple[int, int]]) -> CurvatureCost:
        """Return the cost of basis, image and eigenvectors: D x (2 k + r) numbers in each layer."""
        width, r = self.recipe.basis_width, self.recipe.r
        dense = [d1 * d2 for d1, d2 in shapes]
        return CurvatureCost(
            stored_bytes=sum(d * (2 * min(width, d) + min(r, d)) * 4 for d in dense),
            largest_state_bytes=max(d * min(width, d) * 8 for d in dense),
            bytes_per_shard=0,
            factor_passes=1 + self.recipe.refinements,
        )

    def basis_versions(self, lake: Lake, checkpoint: str) -> dict[str, str]:
        """Return the basis version of each layer of a checkpoint whose basis was refined."""
        rows = lake.read(self.table, ["layer", "basis_version"], checkpoint=checkpoint)
        return {layer: version for layer, version in rows.iter_rows() if version}

    @property
    def _inverse(self) -> "SvdInverse":
        from lorif_assets.mathematics.curvature.svd_curvature import SvdInverse
        from lorif_assets.mathematics.curvature.svd_preconditioner import CurvatureForm, DampingRule

        recipe = self.recipe
        return SvdInverse(
            recipe.r, DampingRule(recipe.damping_rule), recipe.damping, CurvatureForm(recipe.curvature_form)
        )


_KRONECKER_TRIALS = CurvatureTrials(
    values={"factor_dtype": ("int4", "sign"), "fisher_damping": (0.1,)}, budget_shares=(0.25, 0.5, 1.0), wide=True
)


@dataclass(frozen=True)
class Ekfac(LakeCurvature):
    """EK-FAC's eigenvalues in the K-FAC bases, kept up to date by the sums stored beside each shard's factors."""

    table = EKFAC_PRECONDITIONERS
    reads_factors = False
    words = "sums", "those of replaced shards"
    description = """A layer's EK-FAC eigenvalues: the mean square of rotated gradients, summed shard by shard.

    Shards that changed are subtracted and added; no factor is read. With a curvature that is stored elsewhere there is
    nothing to do.
    """
    check = SoundnessCheck(
        "fisher_is_sound",
        "Sums of squares are finite and not negative, and hold exactly the shards' examples that are stored.",
        "every layer's sums are sound",
    )
    layer_figures = LayerFigures.WHITENED
    trials: ClassVar[CurvatureTrials | None] = _KRONECKER_TRIALS

    def state_version(self, factors: StoredFactors) -> str:
        """Return the hash of everything but the data that the sums depend on."""
        return content_hash(
            [self.recipe.factor_hash, factors.weights_hash, factors.projection, factors.bases_fingerprint]
        )

    def ledger(self, factors: StoredFactors) -> Ledger:
        """Return the ledger of the shards' folders of sums."""
        return Ledger.of(factors, factors.fisher)

    def parts(
        self, factors: StoredFactors, layer: str, files: Sequence[FactorFile], rows: int | None, device: "torch.device"
    ) -> "Iterator[FisherDiagonal]":
        """Yield the sums of shards."""
        from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

        del rows
        for file in files:
            tensors = factors.lake.read_tensors(f"{file.path}/{layer}.safetensors")
            yield FisherDiagonal.from_tensors(tensors, file.rows, device)

    def part(self, factors: "GradientFactors", sums: "FisherDiagonal | None") -> "FisherDiagonal":
        """Return the sums.

        Raises:
            ValueError: they are missing.
        """
        del factors
        if sums is None:
            raise ValueError(f"the curvature {self.recipe.curvature!r} needs sums of squares, and none were given")
        return sums

    def empty(self, shape: tuple[int, int], bases: "KfacBases | None", device: "torch.device") -> "EkfacCurvature":
        """Return the curvature of no examples in the layer's bases.

        Raises:
            ValueError: the bases are missing.
        """
        del shape, device
        return self._form.empty(self._needed(bases), self.recipe.fisher_damping)

    def restored(
        self, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", bases: "KfacBases | None"
    ) -> "EkfacCurvature":
        """Return a layer's curvature from its sums."""
        from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

        sums = FisherDiagonal.from_tensors(tensors, row["n_examples"], tensors["squares"].device)
        return self._form(self._needed(bases), sums, self.recipe.fisher_damping)

    def preconditioner(
        self, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", bases: "KfacBases | None"
    ) -> "LayerPreconditioner":
        """Return the inverse of the eigenvalues."""
        return self.restored(row, tensors, bases).preconditioner()

    def columns(
        self, curvature: "EkfacCurvature", factors: StoredFactors, basis_version: str, refine_below: float
    ) -> dict[str, Any]:
        """Return the fingerprint of the bases."""
        del curvature, basis_version, refine_below
        return {"bases": factors.bases_fingerprint}

    @classmethod
    def soundness(cls, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", n_stored: int) -> Soundness:
        """Look at the sums and at the number of examples in them."""
        from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

        count = row["n_examples"]
        missing = [] if count == n_stored else [f"holds {count} of {n_stored} stored examples"]
        return Soundness([*FisherDiagonal(tensors["squares"], count).faults(), *missing])

    def metrics(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Return the mean eigenvalue, the trace and the damping."""
        return {"mean_eigenvalue": row["trace"] / (row["d1"] * row["d2"]), **super().metrics(row)}

    def cost(self, shapes: Sequence[tuple[int, int]]) -> CurvatureCost:
        """Return the cost of both bases with their eigenvalues in FP32, and of the sums in FP64."""
        return CurvatureCost(
            stored_bytes=sum(4 * (d1 * d1 + d2 * d2 + d1 + d2) + 8 * d1 * d2 for d1, d2 in shapes),
            largest_state_bytes=max(8 * (d1 * d1 + d2 * d2 + d1 * d2) for d1, d2 in shapes),
            bytes_per_shard=sum(4 * d1 * d2 for d1, d2 in shapes),
            factor_passes=0,
        )

    @property
    def _form(self) -> "type[EkfacCurvature]":
        from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature

        return EkfacCurvature

    def _needed(self, bases: "KfacBases | None") -> "KfacBases":
        if bases is None:
            raise ValueError(f"the curvature {self.recipe.curvature!r} needs the layer's bases")
        return bases


@dataclass(frozen=True)
class Kfac(Ekfac):
    """K-FAC's own eigenvalues in the same bases, stored as EK-FAC's are."""

    trials = replace(_KRONECKER_TRIALS, budget_shares=(1.0,))

    @property
    def _form(self) -> "type[EkfacCurvature]":
        from lorif_assets.mathematics.curvature.kfac import KfacCurvature

        return KfacCurvature


@dataclass(frozen=True)
class Adam(Ekfac):
    """Adam's second moments along the same bases, which hold them, stored as EK-FAC's eigenvalues are."""

    # A trial fits bases to examples alone.
    trials = None

    @property
    def _form(self) -> "type[EkfacCurvature]":
        from lorif_assets.mathematics.curvature.adam import AdamCurvature

        return AdamCurvature


CURVATURES: Mapping[str, type[LakeCurvature]] = {"svd": Svd, "ekfac": Ekfac, "kfac": Kfac, "adam": Adam}
"""Curvatures by their name in `recipe.curvature`."""


def curvature_of(recipe: Recipe) -> LakeCurvature:
    """Return the recipe's curvature."""
    return CURVATURES[recipe.curvature](recipe)


def curvature_tables() -> list[TableSchema]:
    """Return the tables that hold preconditioners, each once."""
    return list({curvature.table.name: curvature.table for curvature in CURVATURES.values()}.values())


def curvatures_in(table: TableSchema) -> dict[str, type[LakeCurvature]]:
    """Return the curvatures that a table holds, by name."""
    return {name: kind for name, kind in CURVATURES.items() if kind.table == table}


def whitened_in(table: TableSchema) -> bool:
    """Return whether curvatures that a table holds have gradients whitened in K-FAC bases."""
    return any(CURVATURE_FIELDS[name].whitens for name in curvatures_in(table))


def write_shard_sums(lake: Lake, checkpoint: str, sums: "Mapping[str, FisherDiagonal]") -> str:
    """Store each layer's sum of R * R [d1, d2] over the examples of one shard, or over a sample of them, in FP32.

    Returns the folder of the files, relative to the lake's root.
    """

    def tensors(layer: str) -> "dict[str, torch.Tensor]":
        return {**sums[layer].tensors(), "squares": sums[layer].squares.float()}

    return lake.write_tensor_folder(f"fisher_sums/{checkpoint}", list(sums), tensors)
