"""The demo's training recipe on a part of its passages: what its evaluation retrains with."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl

from lorif_assets.config.settings import load_settings
from lorif_assets.demo.training import DemoModelConfig, new_model, optimise, save, tokenize
from lorif_assets.project import Project


def retrain(examples: Path, seed: int, output: Path) -> None:
    """Train the demo's model from scratch on some passages, for as many epochs as the demo's own, with its tokenizer.

    Args:
        examples: Parquet file with the columns example_id and text.
        seed: of the initial weights and of the order of the batches.
        output: directory to write the checkpoint `step-<000000>` to.
    """
    settings = load_settings()
    demo = Project.of(settings).checkpoints
    tokenizer = demo.load_tokenizer(demo.find()[-1])
    sequences = tokenize(pl.read_parquet(examples)["text"].to_list(), tokenizer)
    trained = json.loads((settings.base / "training.json").read_text())
    config = DemoModelConfig(seed=seed, architecture=trained["architecture"])
    steps = max(1, round(config.checkpoint_steps[-1] * sum(map(len, sequences)) / trained["corpus_tokens"]))
    config = replace(config, checkpoint_steps=(steps,))
    model = new_model(tokenizer, config)
    for _ in optimise(model, sequences, config):
        pass
    save(model, tokenizer, output / f"step-{steps:06d}")
