"""Tail-patch on a checkpoint: a step on each retrieved example, and its effect on the queries that retrieved it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float64

from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.retraining.query_losses import example_losses
from lorif_assets.mathematics.evaluation.tail_patch import patched
from lorif_assets.mathematics.gradients.batching import pad_right
from lorif_assets.mathematics.gradients.collector import TokenBatch
from lorif_assets.mathematics.gradients.head import losses_with_graph
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL
from lorif_assets.progress import Progress


def tail_patch_changes(
    inputs: MethodInputs, proponents: Mapping[str, Sequence[Sequence[str]]]
) -> Mapping[str, Float64[np.ndarray, " Q"]]:
    """Return by method and query the mean change in the completion's log-probability per token, in nats.

    Args:
        inputs: the checkpoint, the queries and the examples.
        proponents: by method, for each query the ids of its first proponents.
    """
    attributed, settings = inputs.attributed, inputs.settings
    model, device = attributed.model, attributed.device
    examples = {example.example_id: example for example in inputs.examples.tokenized}
    queries = inputs.queries.tokenized
    before = example_losses(model, queries, settings.batch.tokens, device)
    queries_by_example: dict[str, set[int]] = defaultdict(set)
    for per_query in proponents.values():
        for query, names in enumerate(per_query):
            for name in names:
                queries_by_example[name].add(query)
    changes: dict[tuple[str, int], float] = {}
    with Progress("tail-patch", len(queries_by_example), "examples") as progress:
        for name, positions in queries_by_example.items():
            chosen = sorted(positions)
            batch = pad_right([examples[name].input_ids], [examples[name].labels]).to(device)

            with patched(model, partial(_mean_loss, model, batch), settings.evaluation.tail_patch_learning_rate):
                after = example_losses(model, [queries[q] for q in chosen], settings.batch.tokens, device)
            for query, value in zip(chosen, after, strict=True):
                changes[name, query] = float(before[query] - value) / queries[query].n_targets
            progress.advance(1)
    return {
        method: np.array([np.mean([changes[name, q] for name in names]) for q, names in enumerate(per_query)])
        for method, per_query in proponents.items()
    }


def _mean_loss(model: torch.nn.Module, example: TokenBatch) -> torch.Tensor:
    """Return the mean loss per target token of one example."""
    losses = losses_with_graph(model, {"input_ids": example.input_ids, "use_cache": False}, example.labels)
    return losses.sum() / (example.labels[:, 1:] != IGNORED_LABEL).sum()
