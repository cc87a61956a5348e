"""What a curvature that a recipe can name has to say of itself: where it is stored, how it is computed, what is shown of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.attribution.stored.ledger import Ledger
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.lake import FactorFile, Lake
from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.curvature import Curvature, LayerPreconditioner
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
    from lorif_assets.mathematics.factors.low_rank import GradientFactors


class LayerFigures(Enum):
    """What the rows of a curvature's table say of a layer: what the attribution report shows."""

    SPECTRUM = "r leading eigenvalues and the share of the trace that they hold"
    WHITENED = "the largest eigenvalues in the K-FAC bases, whose own row says what is kept of an example"
    PLAIN = "eigenvalues, trace and damping, as far as the table has such columns"


@dataclass(frozen=True)
class CurvatureTrials:
    """Recipes of a curvature that are worth a trial: every combination of values of some recipe fields.

    `fixed` fields have the same value in all of them. Each is tried with shares of the bytes that an example may take; without
    shares there is no budget of bytes. `wide` says whether layers of full width, such as the LM head, can be tried.
    """

    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    budget_shares: Sequence[float] = ()
    wide: bool = False


@dataclass(frozen=True)
class SoundnessCheck:
    """How the check of what is stored appears: its name, what holds where it passes, in a sentence and in a few words.

    `deviation` names the figure that shows the largest deviation of all layers; None if no deviation is measured.
    """

    name: str
    description: str
    summary: str
    deviation: str | None = None


@dataclass(frozen=True)
class Soundness:
    """What is wrong with a stored layer, in words, and how far it deviates from what it should be."""

    faults: Sequence[str]
    deviation: float = 0.0


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
    description: ClassVar[str]
    """Of the asset that keeps its table; the first curvature of a table speaks for those that share it."""
    check: ClassVar[SoundnessCheck]
    """Of its table, described as above."""
    is_refinable: ClassVar[bool] = False
    """Whether a run can be asked to fit its basis again."""
    layer_figures: ClassVar[LayerFigures] = LayerFigures.PLAIN
    trials: ClassVar[CurvatureTrials | None] = CurvatureTrials()
    """Recipes that `lorif tune` tries; None where it cannot be tried on examples alone."""

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
        self, factors: StoredFactors, layer: str, files: Sequence[FactorFile], rows: int | None, device: "torch.device"
    ) -> Iterator[Any]:
        """Yield the parts of the curvature stored in files of a ledger: sums, or factors of `rows` examples at a time.

        Without `rows`, as many as fit.

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

    @classmethod
    @abstractmethod
    def soundness(cls, row: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", n_stored: int) -> Soundness:
        """Return what is wrong with a stored layer.

        Args:
            row: of the layer.
            tensors: that the row points to.
            n_stored: examples whose factors the layer's checkpoint has.
        """

    @abstractmethod
    def cost(self, shapes: Sequence[tuple[int, int]]) -> CurvatureCost:
        """Return what it costs in layers of these shapes [d1, d2]."""

    def metrics(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Return the figures of a layer's row that are followed from run to run."""
        return {name: row[name] for name in ("trace", "damping") if name in row}

    def remarks(self, row: Mapping[str, Any]) -> dict[str, float | bool]:
        """Return what else a run reports of a layer's row."""
        del row
        return {}

    def basis_versions(self, lake: Lake, checkpoint: str) -> dict[str, str]:
        """Return the basis version of each layer of a checkpoint whose basis was refined, which changes scores."""
        del lake, checkpoint
        return {}
