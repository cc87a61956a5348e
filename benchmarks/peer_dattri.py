"""dattri's LoGRA: projected gradients, multiplied with those of queries. Runs in dattri's environment (see `peers.py`).

Gradients stay in memory: to keep them on disk, dattri pins memory, which there is none of without an accelerator.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from dattri.algorithm.logra import LoGraAttributor
from dattri.task import AttributionTask
from peer_workload import Peer, Workload, run, summed_loss, with_plain_linear_layers
from torch.utils.data import DataLoader


class Dattri(Peer):
    """`proj_dim` is the number of projected numbers of a layer; `Identity` keeps gradients as they are."""

    distribution = "dattri"

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._model = workload.model()
        self._layers = with_plain_linear_layers(self._model, workload.layers)
        # Only activation gradients are needed, which dattri leaves to its user.
        self._model.requires_grad_(False)
        self._model.get_input_embeddings().register_forward_hook(lambda _m, _i, output: output.requires_grad_(True))
        self._state = self._model.state_dict()
        self.setting = (
            f"LoGraAttributor, proj_dim {workload.projection_width}^2, offload cpu (in memory), "
            f"batches of {workload.batch_rows}, weights frozen"
        )

    def build(self, examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", folder: Path) -> None:
        folder.mkdir(parents=True)
        self._attributor = LoGraAttributor(
            AttributionTask(_loss, self._model, self._state),
            self._layers,
            hessian="Identity",
            device="cpu",
            proj_dim=self.workload.projection_width**2,
            offload="cpu",
            cache_dir=str(folder),
        )
        self._loader = self._batches(examples)
        self._attributor.cache(self._loader)

    def stored_bytes(self, _folder: Path) -> int:
        return sum(tensor.nbytes for tensor in self._attributor.offload_manager.cached_gradients.values())

    def prepare(self) -> None:
        self._attributor.compute_ifvp()

    def scores(self) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        return self._attributor.attribute(self._loader, self._batches(self.workload.queries)).T.float().numpy()

    def _batches(self, examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]") -> Any:
        rows = [{"input_ids": row, "labels": row} for row in torch.from_numpy(examples)]
        return DataLoader(rows, batch_size=self.workload.batch_rows, shuffle=False)  # type: ignore[arg-type]


def _loss(model: Any, batch: dict[str, torch.Tensor], device: str) -> torch.Tensor:
    ids = batch["input_ids"].to(device)
    return summed_loss(model(input_ids=ids, use_cache=False).logits, ids)


if __name__ == "__main__":
    run(Dattri)
