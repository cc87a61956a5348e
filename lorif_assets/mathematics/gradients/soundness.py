"""What must hold for a model before its gradients mean what they are taken for; checked on a few tokens."""

from typing import Any

import torch
from torch import Tensor, nn

from lorif_assets.mathematics.gradients.expert_forms import experts_forward, fused_weights, trial_arguments
from lorif_assets.mathematics.gradients.frozen_model import frozen
from lorif_assets.mathematics.gradients.layers import LayerError

_TOKENS = 6
_NOISE = 1e-6
"""Of the largest gradient: what is smaller is rounding."""
_LARGEST_DIFFERENCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of two ways to multiply the same, relative; other types have few digits."""


def refuse_unsound(model: nn.Module) -> None:
    """Refuse a model whose predictions depend on later tokens, or whose experts compute something unknown.

    Raises:
        LayerError: as said.
    """
    with frozen(model):
        if sees_later_tokens(model):
            raise LayerError(
                f"{type(model).__name__} is no causal language model: what it predicts at a token depends on the tokens "
                "after it, as in an encoder, and its loss as a language model means nothing. Use a checkpoint of a model "
                "that was trained to predict the next token; if this one was, its config.json lacks `is_decoder: true`"
            )
        seen: set[type[nn.Module]] = set()
        for path, module in model.named_modules():
            if fused_weights(module) and type(module) not in seen:
                seen.add(type(module))
                _refuse_other_experts(path, module)


def refuse_unattributable(model: nn.Module) -> None:
    """Refuse an unsound model, and one whose forward pass takes more than text or lets no gradient through.

    Raises:
        LayerError: as said.
    """
    try:
        refuse_unsound(model)
    except torch.OutOfMemoryError:
        raise
    # What is raised inside a model is of any of these kinds.
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise LayerError(
            f"a {type(model).__name__} cannot be run and differentiated on text alone: {str(error) or type(error).__name__}"
        ) from error


def sees_later_tokens(model: nn.Module) -> bool:
    """Return whether logits change with the embedding of a later token: by their gradient, which rounding does not blur."""
    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    weight = next(embeddings.parameters())
    embedded: list[Tensor] = []

    def on_output(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_(True))
        # A copy, as autograd lets no model write into a leaf.
        return embedded[-1].clone()

    ids = torch.arange(_TOKENS, device=weight.device).unsqueeze(0) % weight.shape[0]
    hook = embeddings.register_forward_hook(on_output)
    try:
        with torch.enable_grad():
            output: Any = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
            earlier = output.logits[:, : _TOKENS - 1].float().square().sum()
            gradients = torch.autograd.grad(earlier, embedded, allow_unused=True)
    finally:
        hook.remove()
    sizes = [g.abs().flatten(0, -3).amax(dim=(0, 2)) for g in gradients if g is not None]
    return any(float(size[-1]) > _NOISE * float(size.max()) for size in sizes)


def _refuse_other_experts(path: str, module: nn.Module) -> None:
    """Refuse experts whose own forward pass gives another result than the one that stands in for it."""
    arguments = trial_arguments(module, _TOKENS)
    dtype = arguments[0].dtype
    with torch.no_grad():
        expected = module(*arguments).double()
        found = experts_forward(module)(*arguments).double()
    difference = float((found - expected).norm() / expected.norm().clamp(min=torch.finfo(torch.float64).tiny))
    if not difference <= _LARGEST_DIFFERENCE.get(dtype, 0.05):
        raise LayerError(
            f"the experts of {path}, a {type(module).__name__}, compute something else than is known of such experts "
            f"(results differ by {difference:.1%}): their gradients cannot be collected. Name the layers to track in "
            "`recipe.include_layers` (for instance '*self_attn*')"
        )
