"""A scan of stored factors, cut into parts that workers rank by themselves, and one part's ranking."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.lake.lake import FactorFile
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.scores.relative_influence import Rankings, ScoredBlock


@dataclass(frozen=True)
class Scan:
    """Which files to scan and why, and the rankings already known from the others."""

    files: "tuple[FactorFile, ...]"
    rankings: "Rankings"
    reason: str

    @property
    def is_full(self) -> bool:
        """Whether nothing was known before it."""
        return self.rankings.moments.count == 0


class BlockScorer(Protocol):
    """Scores stored examples; picklable."""

    def blocks(self, files: Sequence[FactorFile], device: "torch.device") -> "Iterator[ScoredBlock]":
        """Score the examples of adjacent files, block by block, in their order."""
        ...


Stretch = tuple[int, tuple[FactorFile, ...]]
"""Adjacent files, and the position of their first example."""


@dataclass(frozen=True)
class ScanPart:
    """Some of a scan's files, and the rankings that their examples are added to; positions count from `first` on.

    A part that goes on from what is known before the scan takes all of its files, with or without gaps between them; the
    others are stretches, and start from nothing.
    """

    first: int
    stretches: Sequence[Stretch]
    rankings: "Rankings"
    goes_on: bool

    @property
    def n_examples(self) -> int:
        """Examples to score."""
        return sum(file.rows for _, files in self.stretches for file in files)

    def __str__(self) -> str:
        files = [file for _, stretch in self.stretches for file in stretch]
        return f"the shards {files[0].shard} to {files[-1].shard}" if files else "no shard"


@dataclass(frozen=True)
class RankedPart:
    """The rankings of a part, and, where they are kept, blocks [Q, n] of the scores of all its examples, on the CPU."""

    rankings: "Rankings"
    scores: "Sequence[torch.Tensor]"


def scan_parts(factors: StoredFactors, scan: Scan, n_queries: int, parts: int) -> list[ScanPart]:
    """Cut a scan into about as many parts as asked for, between files.

    A single part is ranked as a whole, in one order of sums; more than one are ranked apart and joined.
    """
    from lorif_assets.mathematics.scores.relative_influence import Rankings

    stretches = list(factors.adjacent(scan.files))
    largest = -(-sum(file.rows for file in scan.files) // parts)
    pieces = [piece for stretch in stretches for piece in _pieces(stretch, largest)] if parts > 1 else []
    if len(pieces) <= 1:
        return [ScanPart(0, stretches, scan.rankings, goes_on=True)]
    k = scan.rankings.plain.k
    return [
        ScanPart(first, [(first, files)], Rankings.empty(n_queries, k, sum(file.rows for file in files)), goes_on=False)
        for first, files in pieces
    ]


def _pieces(stretch: Stretch, largest: int) -> Iterator[Stretch]:
    """Cut a stretch into pieces of at most `largest` examples, or of one file."""
    first, files = stretch
    piece: list[FactorFile] = []
    rows = 0
    for file in files:
        if piece and rows + file.rows > largest:
            yield first, tuple(piece)
            first, piece, rows = first + rows, [], 0
        piece.append(file)
        rows += file.rows
    yield first, tuple(piece)


def ranked_part(
    part: ScanPart, device: "torch.device", progress: Progress, *, scorer: BlockScorer, keeps_all: bool
) -> RankedPart:
    """Score the examples of a part, and rank them.

    Args:
        part: of a scan.
        device: where to compute.
        progress: advances with every block.
        scorer: of the examples.
        keeps_all: whether every score is returned.
    """
    rankings, every = part.rankings, []
    for first, files in part.stretches:
        position = first - part.first
        # The next block is scored while this one is ranked.
        for block in read_ahead(scorer.blocks(files, device)):
            rankings = rankings.update(block, position)
            count = block.scores.shape[1]
            position += count
            if keeps_all:
                every.append(block.scores.cpu())
            progress.advance(count)
    return RankedPart(rankings, every)
