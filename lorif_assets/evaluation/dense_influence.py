"""Influence with dense projected gradients: what LoRIF approximates, at a cost that only small models can pay.

Gradients are given by layer, [n, D]; sums over layers run where H is block-diagonal, as for LoRIF.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LayerGradients = Mapping[str, Float[Tensor, "n D"]]


@dataclass
class DenseCurvature:
    """H = sum of g g^T per layer [D, D], accumulated over batches in FP32."""

    matrices: dict[str, Float[Tensor, "D D"]]

    def add(self, gradients: LayerGradients) -> None:
        """Count a batch of gradients."""
        for layer, g in gradients.items():
            if layer in self.matrices:
                self.matrices[layer].addmm_(g.mT, g)
            else:
                self.matrices[layer] = g.mT @ g

    def preconditioned(self, gradients: LayerGradients, damping: float) -> dict[str, Float[Tensor, "n D"]]:
        """Return (H + lam I)^-1 g, lam = damping x tr H / D: LoGRA (Choe et al. 2024, arXiv 2405.13954) with 0.1."""
        return {layer: _solved(self.matrices[layer], g, damping) for layer, g in gradients.items()}


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
    # Fewer examples than features leave directions that no example has.
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + ridge, queries.double().mT).mT
    return (weights @ phi.mT * (1 - torch.exp(-mean_losses.to(phi)))).float()


def _solved(h: Float[Tensor, "D D"], gradients: Float[Tensor, "n D"], damping: float) -> Float[Tensor, "n D"]:
    trace = h.diagonal().double().sum()
    if trace == 0:
        return torch.zeros_like(gradients)
    damped = h.double()
    damped.diagonal().add_(damping * trace / h.shape[0])
    return torch.cholesky_solve(gradients.double().mT, torch.linalg.cholesky(damped)).mT.to(gradients)
