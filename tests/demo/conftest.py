"""The corpus of this Python, and a model trained on a part of it in seconds."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lorif_assets.demo.corpus import Corpus, build_corpus
from lorif_assets.demo.training import DemoModelConfig, TrainingSummary, train

TINY = DemoModelConfig(
    vocab_size=400,
    layers=1,
    width=32,
    heads=2,
    checkpoint_steps=(40, 160),
    batch_tokens=512,
    learning_rate=2e-2,
)


@dataclass(frozen=True)
class TrainedModel:
    corpus: Corpus
    directory: Path
    summary: TrainingSummary


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # A model this small gains nothing from a second thread, and loses much where a core is busy.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return build_corpus()


@pytest.fixture(scope="session")
def small_corpus(corpus) -> Corpus:
    return Corpus(train=corpus.train[:200], held_out=corpus.held_out[:10])


@pytest.fixture(scope="session")
def trained(small_corpus, tmp_path_factory) -> TrainedModel:
    directory = tmp_path_factory.mktemp("checkpoints")
    return TrainedModel(small_corpus, directory, train(small_corpus, directory, TINY))
