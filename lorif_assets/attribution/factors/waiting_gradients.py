"""Gradients that wait to be factorised together: an accelerator takes as long for one layer's as for those of all layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.factors.low_rank import GradientFactors, ScaledMatrices
    from lorif_assets.mathematics.factors.token_gradients import TokenGradients

LAPACK_NUMBERS = 1 << 20
"""Of gradients that LAPACK factorises together: each copy on the way has as many, and more of them are no faster."""


@dataclass(frozen=True)
class LayerGradients:
    """Gradients [n, d1, d2] of some rows of a batch in one layer, formed or as their tokens."""

    layer: str
    rows: slice
    gradients: "torch.Tensor | TokenGradients"


@dataclass(frozen=True)
class _Group:
    """Gradients that are factorised together: of one shape, at one rank, all formed or none."""

    d1: int
    d2: int
    rank: int
    are_formed: bool


class WaitingGradients:
    """Gradients of a batch, layer by layer, until others of their shape have come, or too many wait."""

    def __init__(
        self,
        ranks: Mapping[str, int],
        rounds: int | None,
        max_numbers: int,
        take: "Callable[[Sequence[LayerGradients], GradientFactors], None]",
    ) -> None:
        """Wait for nothing yet.

        Args:
            ranks: of each layer.
            rounds: of subspace iteration; None: factors by LAPACK.
            max_numbers: that wait at most; the gradients of a single slice may have more.
            take: is shown gradients of one shape with the factors of all of them, at their ranks or above.
        """
        self._ranks, self._rounds, self._max_numbers, self._take = ranks, rounds, max_numbers, take
        self._waiting: dict[_Group, list[LayerGradients]] = {}
        self.numbers = 0
        """Of what waits."""

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting, self.numbers = {}, 0

    def add(self, layer: str, rows: slice, gradients: "torch.Tensor | TokenGradients") -> None:
        """Keep gradients; those that wait already come first where there is no room for these."""
        import torch

        from lorif_assets.mathematics.factors.subspace_iteration import shared_rank

        if isinstance(gradients, torch.Tensor):
            (_, d1, d2), numbers, is_formed = gradients.shape, gradients.numel(), True
        else:
            d1, d2, numbers, is_formed = gradients.x.shape[2], gradients.dy.shape[2], gradients.numbers, False
        if self.numbers + numbers > self._max_numbers:
            self.factorise()
        # In rounds, a rank's components are the first of a larger one's.
        rank = self._ranks[layer] if self._rounds is None else shared_rank(self._ranks[layer])
        self._waiting.setdefault(_Group(d1, d2, rank, is_formed), []).append(LayerGradients(layer, rows, gradients))
        self.numbers += numbers

    def factorise(self) -> None:
        """Factorise what waits: layers of equal shape and rank in one call, in rounds all of about one rank."""
        from lorif_assets.mathematics.factors.low_rank import factors_in_rounds, low_rank_factors

        if self._rounds is None:
            for group, waiting in self._waiting.items():
                for some in _parts(waiting, LAPACK_NUMBERS // (group.d1 * group.d2)):
                    self._take(some, low_rank_factors(_joined(some), group.rank))
        else:
            for rank in sorted({group.rank for group in self._waiting}):
                of_rank = [waiting for group, waiting in self._waiting.items() if group.rank == rank]
                found = factors_in_rounds([_scaled(waiting) for waiting in of_rank], rank, self._rounds)
                for waiting, factors in zip(of_rank, found, strict=True):
                    self._take(waiting, factors)
        self.clear()


def rounds_on(device: "torch.device", asked_for: int | None) -> int | None:
    """Return the rounds of subspace iteration on a device; None stands for factors by LAPACK, a CPU's way."""
    from lorif_assets.mathematics import accelerators
    from lorif_assets.mathematics.factors.subspace_iteration import ROUNDS

    return asked_for or (ROUNDS if accelerators.is_accelerator(device) else None)


def _parts(waiting: Sequence[LayerGradients], matrices: int) -> Iterator[list[LayerGradients]]:
    """Yield what waits in parts of at most so many matrices; a slice with more is a part of its own."""
    part: list[LayerGradients] = []
    n = 0
    for one in waiting:
        more = one.rows.stop - one.rows.start
        if part and n + more > matrices:
            yield part
            part, n = [], 0
        part.append(one)
        n += more
    if part:
        yield part


def _joined(waiting: Sequence[LayerGradients]) -> "torch.Tensor":
    """Return formed gradients of some layers as one batch."""
    import torch

    formed = [one.gradients for one in waiting if isinstance(one.gradients, torch.Tensor)]
    return torch.cat(formed) if len(formed) > 1 else formed[0]


def _scaled(waiting: Sequence[LayerGradients]) -> "ScaledMatrices":
    """Return gradients of some layers, all formed or none, as what subspace iteration multiplies."""
    from lorif_assets.mathematics.factors.low_rank import ScaledMatrices
    from lorif_assets.mathematics.factors.token_gradients import TokenGradients

    of_tokens = [one.gradients for one in waiting if isinstance(one.gradients, TokenGradients)]
    return TokenGradients.joined(of_tokens).scaled() if of_tokens else ScaledMatrices.of(_joined(waiting))
