"""bergson: an index of projected gradients on disk, and its `Attributor`. Runs in bergson's environment (see `peers.py`)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from bergson import Attributor, IndexConfig, collect_gradients
from bergson.data import allocate_batches
from bergson.utils.worker_utils import create_processor, setup_model_and_peft
from datasets import Dataset
from peer_workload import Peer, Workload, run, summed_loss


class Bergson(Peer):
    """`projection_dim` on either side of each layer, batches by tokens, FP32: its index is in the model's type."""

    distribution = "bergson"

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        tokens = workload.batch_rows * workload.examples.shape[1]
        self._options: dict[str, Any] = {
            "model": str(workload.model_folder),
            "projection_dim": workload.projection_width,
            "token_batch_size": tokens,
            "precision": "fp32",
            "drop_columns": True,
        }
        self.setting = (
            f"projection_dim {workload.projection_width}, token_batch_size {tokens}, fp32; Attributor in memory"
        )
        self._model, _ = setup_model_and_peft(IndexConfig(run_path=str(workload.folder / "unused"), **self._options))
        self._modules = {name.removeprefix("transformer.") for name in workload.layers}
        self._index = workload.folder

    def build(self, examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", folder: Path) -> None:
        config = IndexConfig(run_path=str(folder), **self._options)
        config.partial_run_path.mkdir(parents=True, exist_ok=True)
        lengths = [examples.shape[1]] * len(examples)
        data = Dataset.from_dict({"input_ids": examples.tolist(), "length": lengths})
        collect_gradients(
            self._model,
            data,
            create_processor(self._model, config),
            config,
            batches=allocate_batches(lengths, config.token_batch_size),
            target_modules=self._modules,
        )
        config.partial_run_path.rename(folder)
        self._index = folder

    def prepare(self) -> None:
        self._attributor = Attributor(self._index)

    def scores(self) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        queries = torch.from_numpy(self.workload.queries)
        with self._attributor.trace(self._model.base_model, None, modules=self._modules) as found:
            summed_loss(self._model(queries).logits, queries).backward()
        self._model.zero_grad()
        scores = torch.empty(len(queries), self._attributor.N)
        return scores.scatter(1, found.indices.view(len(queries), -1), found.scores.view(len(queries), -1)).numpy()


if __name__ == "__main__":
    run(Bergson)
