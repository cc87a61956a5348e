"""At f = 1 and full rank, the scores are those of another implementation of EK-FAC."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature, FisherDiagonal
from lorif_assets.mathematics.curvature.kfac_bases import KfacCovariances
from lorif_assets.mathematics.factors.low_rank import low_rank_factors
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.scores.scoring import block_scores
from tests.mathematics.conftest import VOCABULARY

pytestmark = pytest.mark.slow
N_TRAIN, N_QUERIES, LENGTH = 60, 8, 11


def token_ids(n: int, seed: int) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (n, LENGTH), generator=torch.Generator().manual_seed(seed))


def scores_of_this_project(model: torch.nn.Module) -> torch.Tensor:
    layers = [layer_projection(layer, Projection(factor=1, seed=0)) for layer in select_layers(model)]
    mask = torch.ones(N_TRAIN, LENGTH, dtype=torch.bool)
    batch = TokenBatch(token_ids(N_TRAIN, 0), mask, token_ids(N_TRAIN, 0))
    covariances: dict[str, KfacCovariances] = {}

    def observer(layer: str, calls: Any) -> None:
        ((x, dy),) = calls
        empty = KfacCovariances.empty(x.shape[2], dy.shape[2], x.device)
        covariances[layer] = empty.add(x.flatten(0, 1), dy.flatten(0, 1))

    with GradientCollector(model, layers) as collector:
        collector.observe(batch, observer)
        train = collector.collect(batch).gradients
        ids = token_ids(N_QUERIES, 1)
        queries = collector.collect(TokenBatch(ids, mask[:N_QUERIES], ids)).gradients
    factors, ready = {}, {}
    for layer, gradients in train.items():
        bases = covariances[layer].bases(0.1)
        rotated = bases.rotate(gradients)
        factors[layer] = low_rank_factors(rotated * bases.scale, 99)
        preconditioner = EkfacCurvature(bases, FisherDiagonal.of(rotated), 0.1).preconditioner()
        ready[layer] = preconditioner.apply(queries[layer].flatten(1))
    return block_scores(ready, factors)


def scores_of_kronfluence(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    pytest.importorskip("kronfluence", reason="needs the extra `ekfac`")
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    tracked = [layer.name for layer in select_layers(model)]

    class LanguageModelling(Task):
        def compute_train_loss(self, batch: Any, model: torch.nn.Module, sample: bool = False) -> torch.Tensor:
            (ids,) = batch
            logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
            return torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum")

        def compute_measurement(self, batch: Any, model: torch.nn.Module) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return tracked

    train, queries = (torch.utils.data.TensorDataset(token_ids(n, seed)) for n, seed in ((N_TRAIN, 0), (N_QUERIES, 1)))
    task = LanguageModelling()
    analyzer = Analyzer("agreement", prepare_model(model, task), task, cpu=True, output_dir=str(folder))
    arguments = FactorArguments(strategy="ekfac", use_empirical_fisher=True)
    analyzer.fit_all_factors("ekfac", train, per_device_batch_size=20, factor_args=arguments)
    analyzer.compute_pairwise_scores(
        "scores",
        "ekfac",
        queries,
        train,
        per_device_query_batch_size=4,
        per_device_train_batch_size=20,
        score_args=ScoreArguments(damping_factor=None),
    )
    return analyzer.load_pairwise_scores("scores")["all_modules"]


def test_scores_rank_examples_as_kronfluence_does(llama, tmp_path):
    found = scores_of_this_project(llama)
    expected = scores_of_kronfluence(llama, tmp_path)
    ranks = [scores.argsort(dim=1).argsort(dim=1).double() for scores in (found, expected)]
    for mine, theirs in zip(*ranks, strict=True):
        assert float(torch.corrcoef(torch.stack([mine, theirs]))[0, 1]) > 0.99
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
