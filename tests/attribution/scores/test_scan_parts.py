"""A scan that is cut into parts ranks as one that is not."""

import itertools
from dataclasses import dataclass

import pytest
import torch

from lorif_assets.attribution.scores.scan_parts import Scan, scan_parts
from lorif_assets.lake.lake import FactorFile
from lorif_assets.mathematics.scores.relative_influence import Rankings, ScoredBlock

CUTS = [(0, 40), (0, 7, 40), (0, 1, 2, 21, 40), tuple(range(41))]


@dataclass
class Files:
    """Files of a checkpoint's factors, some of which are scanned."""

    files: list[FactorFile]

    def adjacent(self, chosen):
        position, stretch, first = 0, [], 0
        for file in self.files:
            if file in chosen:
                first = position if not stretch else first
                stretch.append(file)
            elif stretch:
                yield first, tuple(stretch)
                stretch = []
            position += file.rows
        if stretch:
            yield first, tuple(stretch)


def ranked(block: ScoredBlock, start: int, end: int, k: int) -> Rankings:
    part = ScoredBlock(block.scores[:, start:end], block.squares[start:end])
    return Rankings.empty(len(block.scores), k, end - start).update(part, 0)


@pytest.mark.parametrize("cut", CUTS, ids=len)
@pytest.mark.parametrize("k", [3, 100])
def test_joined_parts_rank_as_the_whole_does_ties_and_all(cut: tuple[int, ...], k: int) -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(-4, 5, (2, 40), generator=generator).float()
    block = ScoredBlock(scores, torch.rand(40, generator=generator) + 0.1)
    whole = Rankings.empty(2, k, 40).update(block, 0)
    joined = Rankings.empty(2, k, 40)
    for start, end in itertools.pairwise(cut):
        joined = joined.joined(ranked(block, start, end, k), start)
    for one, other in ((joined.plain, whole.plain), (joined.relative, whole.relative)):
        for name in ("highest", "highest_positions", "lowest", "lowest_positions"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.equal(joined.squares, whole.squares)
    assert joined.moments.count == whole.moments.count
    torch.testing.assert_close(joined.moments.total, whole.moments.total)
    torch.testing.assert_close(joined.moments.positive, whole.moments.positive)


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
@pytest.mark.parametrize("left_out", [(), (2,), (0, 3, 5)])
def test_parts_hold_every_file_once_at_its_position(parts: int, left_out: tuple[int, ...]) -> None:
    files = [FactorFile(f"s{k}", f"p{k}", rows) for k, rows in enumerate((5, 1, 9, 4, 4, 7))]
    chosen = tuple(file for k, file in enumerate(files) if k not in left_out)
    scan = Scan(chosen, Rankings.empty(2, 3, 30), "all")
    found = scan_parts(Files(files), scan, 2, parts)
    assert [file for part in found for _, stretch in part.stretches for file in stretch] == list(chosen)
    positions = {file.shard: sum(one.rows for one in files[:k]) for k, file in enumerate(files)}
    for part in found:
        assert [first for first, _ in part.stretches] == [positions[stretch[0].shard] for _, stretch in part.stretches]
        assert part.goes_on == (len(found) == 1)
        assert part.goes_on or part.first == part.stretches[0][0]
    if parts == 1:
        assert found[0].rankings is scan.rankings, "sums go on from what is known"


def test_a_scan_of_nothing_is_one_part_of_no_file() -> None:
    (part,) = scan_parts(Files([]), Scan((), Rankings.empty(2, 3, 0), "nothing"), 2, 8)
    assert (part.n_examples, part.goes_on, str(part)) == (0, True, "no shard")
