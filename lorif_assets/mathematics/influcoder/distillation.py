"""Distilling a matrix of influences into a bi-encoder: embedding cosines learn to reproduce it block by block."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Embed = Callable[[Sequence[int]], Float[Tensor, "n h"]]


@dataclass(frozen=True)
class DistillationConfig:
    """How the encoder is trained; the defaults are the published ones."""

    block_anchors: int = 8
    """k: anchors of one step."""
    block_candidates: int = 16
    """m: pool texts of one step, shared by its anchors."""
    hard_ratio: float = 0.0
    """Share of the candidates that are drawn from the anchors' highest targets."""
    alpha: float = 0.5
    """Weight of the Pearson term; the KL term has the rest."""
    temperature: float = 0.05
    """tau of both softmaxes."""
    epochs: int = 8
    """Passes over the anchors; the weights after the last one are kept."""
    learning_rate: float = 5e-5
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Of AdamW."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises from 0; then it falls linearly to 0."""
    gradient_norm: float = 1.0
    """Norm to which larger gradients are clipped."""
    seed: int = 0
    """Of the order of the anchors and of the candidates."""


@dataclass(frozen=True)
class StepLoss:
    """The loss of one step and its two terms."""

    total: float
    pearson: float
    kl: float


def distillation_loss(
    predictions: Float[Tensor, "k m"], targets: Float[Tensor, "k m"], alpha: float, temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Return alpha Lp + (1 - alpha) Lk, Lp and Lk.

    Lp = 1 - Pearson correlation of the flattened blocks;
    Lk = mean over rows of KL(softmax(targets / tau) || softmax(predictions / tau)).
    """
    p, t = predictions.flatten() - predictions.mean(), targets.flatten() - targets.mean()
    pearson = 1.0 - functional.cosine_similarity(p, t, dim=0)
    kl = functional.kl_div(
        (predictions / temperature).log_softmax(dim=1),
        (targets / temperature).log_softmax(dim=1),
        log_target=True,
        reduction="batchmean",
    )
    return alpha * pearson + (1.0 - alpha) * kl, pearson, kl


def sample_candidates(
    targets: Float[Tensor, "k n"], m: int, hard_ratio: float, generator: torch.Generator
) -> list[int]:
    """Draw m distinct pool texts for a block of k anchors, floor(m hard_ratio) of them from the anchors' highest targets.

    Args:
        targets: the block's rows, over the whole pool.
        m: how many; no more than the pool has.
        hard_ratio: share of hard ones, from 0 to 1.
        generator: of the random draws.
    """
    k, n = targets.shape
    m, n_hard = min(m, n), int(min(m, n) * hard_ratio)
    leading = targets.topk(min(2 * max(1, n_hard // k + 1), n), dim=1).indices.unique()
    hard = leading[torch.randperm(len(leading), generator=generator)][:n_hard].tolist() if n_hard else []
    hard_set = set(hard)
    rest = [i for i in torch.randperm(n, generator=generator).tolist() if i not in hard_set]
    return [*hard, *rest[: m - len(hard)]]


def learning_rate_factor(step: int, steps: int, warmup_share: float) -> float:
    """Return the share of the peak learning rate at a step (from 0): a linear rise in the warm-up, then a linear fall."""
    warmup = int(steps * warmup_share)
    if step < warmup:
        return step / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))


def distil(
    parameters: Sequence[nn.Parameter],
    embed_anchors: Embed,
    embed_pool: Embed,
    targets: Float[Tensor, "a p"],
    config: DistillationConfig,
) -> Iterator[StepLoss]:
    """Train in place, and yield the losses of each step once it is done.

    Args:
        parameters: what is trained.
        embed_anchors: returns the embeddings of anchors by their rows in `targets`, with gradient.
        embed_pool: the same for pool texts, by column.
        targets: influence of each pool text on each anchor.
        config: how to train.
    """
    n_anchors = targets.shape[0]
    steps = config.epochs * -(-n_anchors // config.block_anchors)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, config.warmup_share)
    )
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        for block in torch.randperm(n_anchors, generator=generator).split(config.block_anchors):
            rows = targets[block]
            candidates = sample_candidates(rows, config.block_candidates, config.hard_ratio, generator)
            anchors = functional.normalize(embed_anchors(block.tolist()).float(), dim=1)
            pool = functional.normalize(embed_pool(candidates).float(), dim=1)
            target = rows[:, candidates].to(anchors)
            loss, pearson, kl = distillation_loss(anchors @ pool.mT, target, config.alpha, config.temperature)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.gradient_norm)
            optimizer.step()
            schedule.step()
            yield StepLoss(loss.item(), pearson.item(), kl.item())
