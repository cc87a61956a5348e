"""A training recipe for tests: the tiny checkpoint with weights shifted by what the examples and the seed are."""

import sys
from pathlib import Path

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CALLS = "calls.txt"


def retrain(examples: Path, seed: int, output: Path) -> None:
    """Write a model, and note the call in the project's folder; fails where a file `fail` there says so."""
    project = next(folder for folder in examples.parents if (folder / "lorif.toml").exists())
    calls = project / CALLS
    done = calls.read_text().splitlines() if calls.exists() else []
    if (fail := project / "fail").exists() and len(done) >= int(fail.read_text()):
        raise RuntimeError("the machine is on fire")
    ids = pl.read_parquet(examples)["example_id"].to_list()
    calls.write_text("\n".join([*done, f"{len(ids)} {seed}"]))
    source = project / "checkpoints" / "step-000100"
    model = AutoModelForCausalLM.from_pretrained(source)
    generator = torch.Generator().manual_seed(seed + 100 * len(ids) + sum(map(len, ids)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(output / "step-000007")
    AutoTokenizer.from_pretrained(source).save_pretrained(output / "step-000007")


def nothing(examples: Path, seed: int, output: Path) -> None:
    """A recipe that trains nothing."""


if __name__ == "__main__":
    retrain(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
