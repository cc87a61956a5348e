"""A checkpoint whose model and factors are used by workers: queries are put to it without its model in this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.checkpoints.opened import OpenedCheckpoint
from lorif_assets.compute.shard_work import Step, Workers, result, results
from lorif_assets.progress import Progress


@dataclass(frozen=True)
class DistributedCheckpoint:
    """What the lake holds of a checkpoint, and workers that have it open."""

    stored: StoredCheckpoint
    workers: Workers[OpenedCheckpoint]

    @property
    def parts(self) -> int:
        """As many as keep all workers at work."""
        return self.workers.parts

    def with_model(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have a worker call the function, with the checkpoint as it has it; it loads the model if that is asked for."""
        return result(self.workers, function, *arguments)

    def scanned(self, scan: Callable[..., Any], parts: Sequence[Any], progress: Progress) -> Iterator[Any]:
        """Have workers scan the parts; the progress is that of whole parts."""
        found = results(self.workers, Step(_scanned, (scan,)), parts)
        for part, ranked in zip(parts, found, strict=True):
            progress.advance(part.n_examples)
            yield ranked


def _scanned(state: OpenedCheckpoint, part: Any, scan: Callable[..., Any]) -> Any:
    label = f"{state.stored.record.name} {part}"
    with state.worker.progress(label, part.n_examples, "examples") as progress:
        return scan(part, state.device, progress)
