"""The whole pipeline against the definition: scores from autograd's weight gradients and the whole inverse, in FP64."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject
from tests.mathematics.references import Example, autograd_gradients, dense_scores, relative_error

CHECKPOINT = CHECKPOINTS[1]
EXACT = {
    "projection_factor": 4,
    "rank": 4,  # of gradients [4, 12] and [4, 16]
    "factor_dtype": "fp32",
    "r": 10_000,
    "top_k": "all",
    "include_layers": ("*.attn.c_attn", "*.mlp.c_fc"),
}


def rows(file: Path) -> Iterator[dict[str, str]]:
    yield from (json.loads(line) for line in file.read_text().splitlines()[:12])


def gradients_by_autograd(project: TinyProject, which: str) -> dict[str, Tensor]:
    """P_in^T (dL/dW) P_out of every training example or query, straight from the files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = project.root / "checkpoints" / CHECKPOINT
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    encode: Callable[[str], list[int]] = lambda text: tokenizer(text)["input_ids"]  # noqa: E731
    examples: list[Example]
    if which == "queries":
        written = rows(project.root / f"queries/{QUERY_SET}.jsonl")
        pairs = [(encode(row["prompt"]), encode(row["completion"])) for row in written]
        examples = [(prompt + said, [-100] * len(prompt) + said) for prompt, said in pairs]
    else:
        files = [project.root / f"data/{index:05d}.jsonl" for index in range(len(SHARDS))]
        texts = [encode(row["text"]) for file in files for row in rows(file)]
        examples = [(ids, ids) for ids in texts]
    layers = select_layers(model, EXACT["include_layers"])
    gradients = autograd_gradients(
        model, examples, [layer_projection(layer, Projection(factor=4, seed=0)) for layer in layers]
    )
    return {name: g.flatten(1) for name, g in gradients.items()}


def pipeline_scores(project: TinyProject) -> Tensor:
    """Scores [Q, N], queries and examples in the order of their files."""
    stored = project.table(QUERY_SCORES, checkpoint=CHECKPOINT, query_set=QUERY_SET)
    number = pl.col("example_id").str.extract(r"-(\d+)").cast(int)
    return torch.from_numpy(stored.sort("query_id", "shard", number)["score"].to_numpy().reshape(3, 36).copy())


def test_scores_are_those_of_the_dense_inverse(private_project: TinyProject) -> None:
    train, queries = (gradients_by_autograd(private_project, which) for which in ("examples", "queries"))
    damping = {name: float(g.square().sum()) / g.shape[1] for name, g in train.items()}
    expected = dense_scores(queries, train, damping)
    exact = private_project.with_settings(
        recipe=EXACT, active={"checkpoints": (CHECKPOINT,)}, batch={"tokens": 40, "scan_rows": 5}
    )
    exact.update()
    assert relative_error(pipeline_scores(exact), expected) < 1e-3

    # With every eigenpair kept, neither the form nor further refinements change a score, and the mean of the leading
    # eigenvalues is the mean of all.
    other = {**EXACT, "curvature_form": "truncated", "damping_rule": "leading", "refinements": 1}
    exact.with_settings(recipe=other).update()
    assert relative_error(pipeline_scores(exact), expected) < 1e-3

    # Without eigenpairs, the curvature is its mean: lam = tau = tr / D.
    exact.with_settings(recipe={**EXACT, "r": 0}).update()
    mean = sum(queries[name] @ g.T / (2 * damping[name]) for name, g in train.items())
    assert relative_error(pipeline_scores(exact), torch.as_tensor(mean)) < 1e-3


def test_a_model_in_bfloat16_gives_nearly_the_same_scores(private_project: TinyProject) -> None:
    train, queries = (gradients_by_autograd(private_project, which) for which in ("examples", "queries"))
    expected = dense_scores(queries, train, {name: float(g.square().sum()) / g.shape[1] for name, g in train.items()})
    project = private_project.with_settings(
        recipe={**EXACT, "model_dtype": "bfloat16"}, active={"checkpoints": (CHECKPOINT,)}
    )
    project.update()
    for found, wanted in zip(pipeline_scores(project), expected, strict=True):
        assert np.corrcoef(found, wanted)[0, 1] > 0.98
