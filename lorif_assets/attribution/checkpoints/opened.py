"""A recorded checkpoint as the state of a worker, which loads its model when the first shard needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.compute.shard_work import Worker
from lorif_assets.config.sections import BatchSettings
from lorif_assets.models.checkpoints import Checkpoints

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases


@dataclass(frozen=True)
class CheckpointOpening:
    """Opens a checkpoint on a worker, with its model unless only some of the workers need it; picklable."""

    stored: StoredCheckpoint
    checkpoints: Checkpoints
    batch: BatchSettings
    loads: bool = True

    def __call__(self, worker: Worker) -> "OpenedCheckpoint":
        """Return the checkpoint.

        Raises:
            MismatchError: the files changed since they were recorded.
            CheckpointError: it cannot be loaded, or its tokenizer does not fit its embeddings.
        """
        opened = OpenedCheckpoint(self.stored, self.checkpoints, worker, self.batch)
        if self.loads:
            _ = opened.model
        return opened


@dataclass
class OpenedCheckpoint:
    """What the lake holds of a checkpoint, and its model on a worker's devices."""

    stored: StoredCheckpoint
    checkpoints: Checkpoints
    worker: Worker
    batch: BatchSettings
    """Budgets of the next shard: what did not fit in one would not fit in the next."""

    @property
    def device(self) -> "torch.device":
        """The worker's first device."""
        return self.worker.devices.first

    @cached_property
    def model(self) -> AttributedModel:
        """The model, loaded when it is first asked for.

        Raises:
            MismatchError: the files changed since they were recorded.
            CheckpointError: it cannot be loaded, or its tokenizer does not fit its embeddings.
        """
        return self.stored.load(self.checkpoints, self.worker.devices).model

    def inverse_of(self, layer: str) -> "LayerPreconditioner":
        """Return a layer's stored inverse curvature, on the worker's first device."""
        return self.stored.preconditioners.load(layer, self.device)

    @cached_property
    def bases(self) -> "Mapping[str, KfacBases]":
        """The bases that each layer's gradients are whitened in; empty without whitening."""
        loaded = {layer: self.stored.bases(layer, self.device) for layer in self.stored.record.layer_shapes}
        return {layer: found for layer, found in loaded.items() if found}
