"""What the encoder learns from: influences of pool texts on anchors, by gradient cosine or by LoRIF."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.queries.precondition_queries import preconditioned_queries
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.config.sections import BatchSettings
from lorif_assets.errors import LorifError, MismatchError

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokens.tokenization import TokenizedExample

_ANCHORS_AT_ONCE = 64


def gradient_cosines(
    attributed: AttributedModel,
    anchors: "Sequence[TokenizedExample]",
    pool: "Sequence[TokenizedExample]",
    settings: InflucoderSettings,
    batch_tokens: int,
) -> "torch.Tensor":
    """Put a fresh adapter on the model, and return the cosines [a, p] of its sketched gradients.

    Raises:
        LorifError: a gradient is zero or not finite.
    """
    import torch

    from lorif_assets.mathematics.gradients.batching import pad_right, token_budget_batches
    from lorif_assets.mathematics.influcoder.lora_gradients import add_fresh_adapter, sketched_gradients

    add_fresh_adapter(attributed.model, settings.lora_rank, settings.lora_seed)
    examples = [*anchors, *pool]
    batches = (
        (batch, pad_right([examples[i].input_ids for i in batch], [examples[i].labels for i in batch]))
        for batch in token_budget_batches([len(example.input_ids) for example in examples], batch_tokens)
    )
    features = sketched_gradients(attributed.model, batches, len(examples), settings.sketch_dim, settings.lora_seed)
    norms = torch.linalg.vector_norm(features, dim=1)
    if not bool((norms > 0.5).all()):
        odd = int((~(norms > 0.5)).nonzero()[0])
        raise LorifError(
            f"the gradient of {examples[odd].example_id!r} at checkpoint {attributed.record.name!r} is zero or not "
            "finite, so its cosines would mean nothing; are the checkpoint's weights finite?"
        )
    return features[: len(anchors)] @ features[len(anchors) :].mT


def lorif_ranks(
    checkpoint: AttributedCheckpoint,
    anchors: "Sequence[TokenizedExample]",
    pool: Sequence[tuple[str, str]],
    batch: BatchSettings,
) -> "torch.Tensor":
    """Return each anchor's LoRIF scores [a, p] as ranks among the pool, from 0 to 1.

    Args:
        checkpoint: with its model loaded.
        anchors: tokenized.
        pool: shards and ids of examples whose factors are stored.
        batch: budgets of the anchors' batches.

    Raises:
        MismatchError: factors or preconditioners are missing or out of date, or an example has no factors.
    """
    import torch

    from lorif_assets.mathematics.influcoder.agreement import rank_transformed
    from lorif_assets.mathematics.scores.scoring import block_scores

    record, stored = checkpoint.stored.record, checkpoint.stored.factors
    place = stored.positions({shard for shard, _ in pool})
    missing = [example for example in pool if example not in place]
    if missing:
        raise MismatchError(
            f"the example {missing[0][1]!r} of shard {missing[0][0]!r} has no gradient factors at {record.name!r}, which "
            "the teacher `lorif` scores; materialize `gradient_factors` first"
        )
    positions = sorted({place[example] for example in pool})
    blocks = stored.rows(list(record.layer_shapes), positions, checkpoint.model.device).blocks
    scores = []
    # Dense gradients of all anchors at once would take more memory than the model.
    for start in range(0, len(anchors), _ANCHORS_AT_ONCE):
        some = anchors[start : start + _ANCHORS_AT_ONCE]
        prepared_queries = preconditioned_queries(checkpoint, some, batch)
        scores.append(torch.cat([block_scores(prepared_queries.by_layer, block).cpu() for block in blocks], dim=1))
    column = {position: index for index, position in enumerate(positions)}
    return rank_transformed(torch.cat(scores)[:, [column[place[example]] for example in pool]])
