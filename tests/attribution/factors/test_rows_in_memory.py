"""However many examples are stored: a scan holds no more of them in memory than it scores and reads ahead at a time."""

import weakref
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import torch

from lorif_assets.attribution.scores.score_rows import listed_positions
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.attribution.stored.factors import StoredFactors, stored_factors
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments, block_scores
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject

ROWS, KEPT, LISTED = 16, 8, 4
CPU = torch.device("cpu")


class Held:
    """Counts the examples whose factors are in memory, and the most that there were."""

    def __init__(self) -> None:
        self.now, self.most, self.seen = 0, 0, 0

    def watched(self, blocks: Iterator[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
        for block in blocks:
            rows = len(next(iter(block.values())))
            self.now, self.seen = self.now + rows, self.seen + rows
            self.most = max(self.most, self.now)
            weakref.finalize(next(iter(block.values())), self._gone, rows)
            yield block
            del block

    def _gone(self, rows: int) -> None:
        self.now -= rows


def with_copies(project: TinyProject, copies: int) -> StoredFactors:
    """The stored factors of a checkpoint, its first shard copied so many times."""
    lake, name = project.lake, CHECKPOINTS[0]
    table = lake.table(GRADIENT_FACTORS)
    assert table is not None
    rows = table.to_pyarrow_table(partitions=[("checkpoint", "=", name), ("shard", "=", SHARDS[0])])
    for copy in range(copies):
        shard = f"copy-{copy:05d}"
        named = rows.set_column(rows.column_names.index("shard"), "shard", pa.array([shard] * rows.num_rows))
        lake.replace(GRADIENT_FACTORS, {"checkpoint": name, "shard": shard}, named)
    return stored_factors(lake, checkpoint_record(lake, name, project.settings.recipe), project.settings.recipe)


@pytest.mark.parametrize("copies", [0, 30])
def test_a_scan_of_many_shards_holds_the_blocks_that_it_scores_and_reads_ahead(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    held, stored = Held(), with_copies(private_project, copies)
    original = StoredFactors._stored_blocks

    def watched(self: StoredFactors, *arguments: Any) -> Iterator[dict[str, torch.Tensor]]:
        return held.watched(original(self, *arguments))

    monkeypatch.setattr(StoredFactors, "_stored_blocks", watched)
    queries = {layer: torch.randn(2, d1 * d2) for layer, (d1, d2) in stored.layer_shapes.items()}
    extremes, moments = ScoreExtremes.empty(2, KEPT), ScoreMoments.empty(2)
    for block in read_ahead(stored.scan_blocks(list(stored.layer_shapes), ROWS, CPU)):
        scores = block_scores(queries, block)
        extremes = extremes.update(scores, moments.count)
        moments = moments.update(scores)
        del block
    assert held.seen == moments.count == stored.n_examples
    assert held.most <= 3 * ROWS, "one that is scored, one that is there already, and one that is being read"
    assert len(stored.example_ids(listed_positions(extremes, LISTED))) >= LISTED
