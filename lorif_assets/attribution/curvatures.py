"""The curvatures that a recipe can name, and everything in which they differ on the lake.

To add one, write a class here, its mathematics in `mathematics/curvature`, and its fields in `config/recipe.py`. It may
share the table and the asset of a curvature that stores the same columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lorif_assets.attribution.ledger import Ledger
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.config.recipe import Recipe, content_hash
from lorif_assets.lake.attribution_tables import EKFAC_PRECONDITIONERS, SVD_PRECONDITIONERS
from lorif_assets.lake.lake import FactorFile, Lake
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.curvature import Curvature, LayerPreconditioner
    from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature, FisherDiagonal, KfacBases
    from lorif_assets.mathematics.curvature.svd_curvature import SvdCurvature, SvdInverse
    from lorif_assets.mathematics.factors.low_rank import GradientFactors


@dataclass(frozen=True)
class CurvatureCost:
    """Bytes of all states in the lake, of the largest one in FP64 and of one shard's sums; passes over the factors."""

    stored_bytes: int
    largest_state_bytes: int
    bytes_per_shard: int
    factor_passes: int


@dataclass(frozen=True)
class LakeCurvature(ABC):
    """A curvature under a recipe: where it is stored, what it is computed from, and what it depends on."""

    recipe: Recipe

    table: ClassVar[TableSchema]
    """Where its preconditioners are stored; the asset has the same name."""
    reads_factors: ClassVar[bool]
    """Whether it is computed from the factors, so that reading examples is its cost; otherwise from sums by shard."""
    words: ClassVar[tuple[str, str]]
    """What to call its state, and what it keeps of a replaced shard."""

    @property
    def refinements(self) -> int:
        """Further passes over the data that improve its basis."""
        return 0

    @abstractmethod
    def state_version(self, factors: StoredFactors) -> str:
        """Return the hash of everything but the data that a state depends on; damping is not part of it."""

    @abstractmethod
    def ledger(self, factors: StoredFactors) -> Ledger:
        """Return the ledger of a state that holds all stored factors: the file that was added for each shard."""

    @abstractmethod
    def parts(
        self, factors: StoredFactors, layer: str, files: Sequence[FactorFile], rows: int, device: "torch.device"
    ) -> Iterator[Any]:
        """Yield the parts of the curvature stored in files of a ledger, `rows` examples at a time if they are factors.

        Raises:
            TableError: a file is gone.
        """

    @abstractmethod
    def part(self, factors: "GradientFactors", sums: "FisherDiagonal | None") -> Any:
        """Return the part that examples in memory make up: their factors, or their sums if gradients are whitened."""

    @abstractmethod
    def empty(self, shape: tuple[int, int], bases: "KfacBases | None", device: "torch.device") -> "Curvature[Any]":
        """Return the curvature of no examples in a layer whose projected gradients are [d1, d2].

        Raises:
            ValueError: it needs the layer's bases, and they are missing.
        """

    @abstractmethod
    def restored(
        self, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", bases: "KfacBases | None"
    ) -> "Curvature[Any]":
        """Return a layer's curvature from its row and tensors, ready for more changes."""

    @abstractmethod
    def preconditioner(
        self, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", bases: "KfacBases | None"
    ) -> "LayerPreconditioner":
        """Return a layer's damped inverse as it was fitted, from its row and tensors."""

    @abstractmethod
    def columns(
        self, curvature: Any, factors: StoredFactors, basis_version: str, refine_below: float
    ) -> dict[str, Any]:
        """Return the columns of a layer's row that only this curvature's table has, besides the curvature's figures.

        Args:
            curvature: of the layer.
            factors: the factors that it holds.
            basis_version: "" for a basis that depends on the recipe alone, else the hash of the data it was refined on.
            refine_below: the row asks for a refinement if added data are captured less than this many times as well.
        """

    @abstractmethod
    def cost(self, shapes: Sequence[tuple[int, int]]) -> CurvatureCost:
        """Return what it costs in layers of these shapes [d1, d2]."""

    def basis_versions(self, lake: Lake, checkpoint: str) -> dict[str, str]:
        """Return the basis version of each layer of a checkpoint whose basis was refined, which changes scores."""
        del lake, checkpoint
        return {}


@dataclass(frozen=True)
class Svd(LakeCurvature):
    """Leading eigenpairs of the factorised gradients, kept up to date by reading the factors that changed."""

    table = SVD_PRECONDITIONERS
    reads_factors = True
    words = "state", "replaced factors"

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
        self, factors: StoredFactors, layer: str, files: Sequence[FactorFile], rows: int, device: "torch.device"
    ) -> "Iterator[GradientFactors]":
        """Yield the factors of files, in blocks."""
        for block in read_ahead(factors.blocks([layer], rows, device, files)):
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


@dataclass(frozen=True)
class Ekfac(LakeCurvature):
    """EK-FAC's eigenvalues in the K-FAC bases, kept up to date by the sums stored beside each shard's factors."""

    table = EKFAC_PRECONDITIONERS
    reads_factors = False
    words = "sums", "those of replaced shards"

    def state_version(self, factors: StoredFactors) -> str:
        """Return the hash of everything but the data that the sums depend on."""
        return content_hash(
            [self.recipe.factor_hash, factors.weights_hash, factors.projection, factors.bases_fingerprint]
        )

    def ledger(self, factors: StoredFactors) -> Ledger:
        """Return the ledger of the shards' folders of sums."""
        return Ledger.of(factors, factors.fisher)

    def parts(
        self, factors: StoredFactors, layer: str, files: Sequence[FactorFile], rows: int, device: "torch.device"
    ) -> "Iterator[FisherDiagonal]":
        """Yield the sums of shards."""
        from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

        del rows
        for file in files:
            squares = factors.lake.read_tensors(f"{file.path}/{layer}.safetensors")["squares"]
            yield FisherDiagonal(squares.double().to(device), file.rows)

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

        sums = FisherDiagonal(tensors["squares"], row["n_examples"])
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

    @property
    def _form(self) -> "type[EkfacCurvature]":
        from lorif_assets.mathematics.curvature.kfac import KfacCurvature

        return KfacCurvature


CURVATURES: Mapping[str, type[LakeCurvature]] = {"svd": Svd, "ekfac": Ekfac, "kfac": Kfac}
"""Curvatures by their name in `recipe.curvature`."""


def curvature_of(recipe: Recipe) -> LakeCurvature:
    """Return the recipe's curvature."""
    return CURVATURES[recipe.curvature](recipe)


def curvature_tables() -> list[TableSchema]:
    """Return the tables that hold preconditioners, each once."""
    return list({curvature.table.name: curvature.table for curvature in CURVATURES.values()}.values())


def write_shard_squares(lake: Lake, folder: str, layer: str, squares: "torch.Tensor") -> None:
    """Store one layer's sum of R * R [d1, d2] over the examples of one shard."""
    lake.write_tensors(folder, {"squares": squares.float()}, layer)
