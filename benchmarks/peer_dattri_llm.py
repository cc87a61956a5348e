"""dattri-llm's gradients by hooks, projected on either side, kept on disk, and its TracIn from there. Runs in its environment.

See `peers.py`. Weights are frozen and only activation gradients asked for, as its own documentation of a probe advises.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from dattri_llm import (
    AttributionArguments,
    GradientStorageManager,
    HookManager,
    HookManagerConfig,
    OffloadCallback,
    TracInAttributor,
)
from peer_workload import Peer, Workload, run, summed_loss

Tokens = np.ndarray[tuple[int, int], np.dtype[np.int64]]


class DattriLlm(Peer):
    """`proj_dim` on either side of each layer, each kept as its rule says takes fewer numbers."""

    distribution = "dattri-llm"

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self._model = workload.model()
        self._model.requires_grad_(False)
        self._model.get_input_embeddings().register_forward_hook(lambda _m, _i, output: output.requires_grad_(True))
        self.setting = (
            f"projection logra, proj_dim {workload.projection_width}, capture_style auto, store on disk, TracIn, "
            f"batches of {workload.batch_rows}, weights frozen"
        )

    def build(self, examples: Tokens, folder: Path) -> None:
        self._store = self._collected(examples, folder)

    def scores(self) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        folder = self.workload.folder / f"queries-{len(list(self.workload.folder.iterdir()))}"
        queries = self._collected(self.workload.queries, folder)
        attributor = TracInAttributor(AttributionArguments(output_dir=str(folder / "scores"), use_cpu=True))
        _, found = attributor.attribute_from_cache(str(self._store), str(queries)).agnostic_matrix()
        scores: np.ndarray[tuple[int, int], np.dtype[np.float32]] = found.mT.float().numpy()
        return scores

    def _collected(self, examples: Tokens, folder: Path) -> Path:
        folder.mkdir(parents=True)
        width = self.workload.projection_width
        projection: dict[str, Any] = {
            "style": "logra",
            "proj_dim": width,
            "proj_max_batch_size": 8,
            "proj_type": "rademacher",
        }
        config = HookManagerConfig(
            hook_types=dict.fromkeys(self.workload.layers, "linear_io"),
            projection_kwargs={"__default__": projection},
            capture_style="auto",
            include_frozen=True,
        )
        kept = OffloadCallback(
            offload_interval=1, file_manager=GradientStorageManager(str(folder)), recording_type="per_sample"
        )
        hooks = HookManager(self._model, config=config, callbacks=[kept])
        with hooks.collect(deregister_on_exit=True):
            for first in range(0, len(examples), self.workload.batch_rows):
                ids = torch.from_numpy(examples[first : first + self.workload.batch_rows])
                summed_loss(self._model(input_ids=ids, use_cache=False).logits, ids).backward()
        return folder


if __name__ == "__main__":
    run(DattriLlm)
