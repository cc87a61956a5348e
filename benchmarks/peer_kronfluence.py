"""kronfluence: EK-FAC factors of the model; each query goes over the training data's gradients again."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from peer_workload import Peer, Workload, run, summed_loss, with_plain_linear_layers

QUERY_RANK = 64


class LanguageModelling(Task):
    """Token-summed losses of examples and of queries."""

    def __init__(self, layers: list[str]) -> None:
        super().__init__()
        self._layers = layers

    def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
        del sample
        return summed_loss(model(input_ids=batch, use_cache=False).logits, batch)

    def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        return self._layers


class Kronfluence(Peer):
    """`ekfac` with the data's own labels; queries at a low rank, which its documentation recommends for language models."""

    distribution = "kronfluence"

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        model = workload.model()
        self._task = LanguageModelling(with_plain_linear_layers(model, workload.layers))
        self._model = prepare_model(model, self._task)
        self.setting = (
            f"ekfac, empirical Fisher, query_gradient_low_rank {QUERY_RANK}, batches of {workload.batch_rows}"
        )

    def build(self, examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", folder: Path) -> None:
        self._examples = list(torch.from_numpy(examples))
        self._analyzer = Analyzer("model", self._model, self._task, cpu=True, disable_tqdm=True, output_dir=str(folder))
        self._analyzer.fit_all_factors(
            "factors",
            self._examples,  # type: ignore[arg-type]
            per_device_batch_size=self.workload.batch_rows,
            factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=True),
        )

    def scores(self) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        queries = list(torch.from_numpy(self.workload.queries))
        with tempfile.TemporaryDirectory() as name:
            self._analyzer.compute_pairwise_scores(
                Path(name).name,
                "factors",
                queries,  # type: ignore[arg-type]
                self._examples,  # type: ignore[arg-type]
                per_device_query_batch_size=len(queries),
                per_device_train_batch_size=self.workload.batch_rows,
                score_args=ScoreArguments(query_gradient_low_rank=QUERY_RANK),
            )
            return self._analyzer.load_pairwise_scores(Path(name).name)["all_modules"].float().numpy()


if __name__ == "__main__":
    run(Kronfluence)
