"""Token-summed losses together with the gradients of their logits, and labels drawn from a model.

Autograd's own backward pass through a cross-entropy writes the gradient of the logits, the largest tensor of the pass,
three times; the formula writes it once.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lorif_assets.mathematics import accelerators

IGNORED_LABEL = -100


def next_tokens(labels: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return what each token is to predict: the next one's label, and nothing at the end."""
    return functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)


def summed_cross_entropies(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Return each example's cross-entropy summed over its target tokens, with its graph.

    A sum, not a mean, makes an example's gradient independent of the other examples in its batch.

    Args:
        logits: of the model; computations are in FP32 at least.
        targets: at the tokens that predict them; -100 carries no loss.
    """
    # In FP32 at least: BF16 has too few digits for a log-sum-exp over a vocabulary.
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(
        scores.flatten(0, 1), targets.to(logits.device).flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    return losses.view(targets.shape).sum(dim=1)


def losses_of_targets(
    logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B T V"]]:
    """Return each example's cross-entropy summed over its target tokens, and the gradient of their sum, without a graph.

    Args:
        logits: of the model; computations are in FP32 at least.
        targets: at the tokens that predict them; -100 carries no loss.

    Returns:
        The losses, and softmax(logits) - onehot(target) at the targets and 0 elsewhere, in the logits' type.
    """
    targets = targets.to(logits.device)
    ignored = targets == IGNORED_LABEL
    at = targets.masked_fill(ignored, 0).unsqueeze(2)
    # In FP32 at least: BF16 has too few digits for a log-sum-exp over a vocabulary.
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_chances = torch.log_softmax(logits, dim=2, dtype=wide)
    losses = -log_chances.gather(2, at).squeeze(2).masked_fill(ignored, 0.0).sum(dim=1)
    gradient = log_chances.exp_()
    gradient.scatter_add_(2, at, torch.full_like(at, -1.0, dtype=wide))
    if accelerators.is_accelerator(logits.device):
        gradient.masked_fill_(ignored.unsqueeze(2), 0.0)
    else:
        # The ignored rows alone are written; an accelerator would wait for their number.
        gradient.flatten(0, 1).index_fill_(0, ignored.flatten().nonzero().squeeze(1), 0.0)
    return losses, gradient.to(logits.dtype)


def sampled_targets(
    logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"], generator: torch.Generator
) -> Int[Tensor, "B T"]:
    """Return targets drawn from the model's distribution, where there are any; they stand at the tokens that predict them.

    Of logits that are not finite any target is drawn: what is computed from them is not finite either, and set aside.
    """
    chances = torch.softmax(logits.float(), dim=-1).flatten(0, 1)
    # A draw from NaN raises on a CPU, and ends the process on a GPU.
    chances = torch.where(chances.isfinite(), chances, 1.0)
    drawn = torch.multinomial(chances, 1, generator=generator).view(targets.shape)
    return targets.where(targets == IGNORED_LABEL, drawn)
