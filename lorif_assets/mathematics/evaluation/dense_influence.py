"""Similarity of dense projected gradients, and influence in the manner of TRAK, in one pass over the examples.

Gradients are given by layer, [n, D].
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

LayerGradients = Mapping[str, Float[Tensor, "n D"]]


def dot_products(left: LayerGradients, right: LayerGradients) -> Float[Tensor, "m n"]:
    """Return inner products, summed over layers."""
    return torch.stack([left[layer] @ right[layer].mT for layer in left]).sum(0)


def squared_norms(gradients: LayerGradients) -> Float[Tensor, " n"]:
    """Return squared norms, summed over layers."""
    return torch.stack([g.square().sum(1) for g in gradients.values()]).sum(0)


def trak_scores(
    queries: Float[Tensor, "Q k"], examples: Float[Tensor, "N k"], mean_losses: Float[Tensor, " N"]
) -> Float[Tensor, "Q N"]:
    """Return single-checkpoint scores in the manner of TRAK (Park et al. 2023, arXiv 2303.14186, eq. 13).

    phi_q (Phi^T Phi)^-1 phi_i (1 - p_i), with projected gradients of all layers together as features, and p_i the
    model's geometric mean probability of the example's target tokens.

    Args:
        queries: features phi_q.
        examples: features phi_i.
        mean_losses: mean loss per target token of the examples, nats.
    """
    phi = examples.double()
    gram = phi.mT @ phi
    # With fewer examples than features, some directions occur in no example.
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + ridge, queries.double().mT).mT
    scores: Float[Tensor, "Q N"] = weights @ phi.mT * (1 - torch.exp(-mean_losses.to(phi)))
    return scores.float()
