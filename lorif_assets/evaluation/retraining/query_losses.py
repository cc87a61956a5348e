"""The losses of query sets under a model, without gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from lorif_assets.attribution.checkpoints.model import tokenized_queries
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.stored_examples import stored_query_set
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.loading.vocabulary import check_vocabulary

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from transformers import PreTrainedModel

    from lorif_assets.data.tokens.tokenization import TokenizedExample


def query_set_losses(
    lake: Lake,
    query_sets: Sequence[str],
    models: Checkpoints,
    checkpoint: CheckpointFiles,
    recipe: Recipe,
    batch_tokens: int,
    devices: DeviceGroup,
) -> pl.DataFrame:
    """Return each query's loss (query_set, query_id, loss summed over target tokens in nats, n_target_tokens).

    Queries that the tokenizer cannot use are left out, as they are from the scores, and those that ask about a contrast, a
    weighted set or a scalar.

    Raises:
        MismatchError: a query set is not in the lake.
        CheckpointError: the checkpoint cannot be loaded.
    """
    model, tokenizer = models.load_model(checkpoint, recipe.model_dtype, devices), models.load_tokenizer(checkpoint)
    check_vocabulary(checkpoint, model, tokenizer)
    frames = []
    for query_set in query_sets:
        rows = stored_query_set(lake, query_set).to_arrow()
        tokenized = tokenized_queries(model, tokenizer, recipe, rows).examples
        queries = [query for query in tokenized if query.objective is None]
        frames.append(
            pl.DataFrame(
                {
                    "query_set": [query_set] * len(queries),
                    "query_id": [query.example_id for query in queries],
                    "loss": example_losses(model, queries, batch_tokens, devices.first).numpy(),
                    "n_target_tokens": [query.n_targets for query in queries],
                },
                schema_overrides={"n_target_tokens": pl.Int32},
            )
        )
    return pl.concat(frames)


def example_losses(
    model: "PreTrainedModel", examples: "Sequence[TokenizedExample]", batch_tokens: int, device: "torch.device"
) -> "Float[torch.Tensor, ' n']":
    """Return the losses [n] of tokenized examples, summed over their target tokens, in nats."""
    import torch

    from lorif_assets.mathematics.gradients.batching import pad_right, token_budget_batches
    from lorif_assets.mathematics.gradients.head import losses_in_chunks

    losses = torch.empty(len(examples))
    with torch.inference_mode():
        for positions in token_budget_batches([len(e.input_ids) for e in examples], batch_tokens):
            batch = pad_right([examples[i].input_ids for i in positions], [examples[i].labels for i in positions])
            batch = batch.to(device)
            losses[positions] = losses_in_chunks(model, batch.model_inputs, batch.labels).float().cpu()
    return losses
