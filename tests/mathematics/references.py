"""Slow, obvious float64 references: what the fast paths of `lorif_assets.attribution` are compared with."""

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.gradients.collector import TokenBatch
from lorif_assets.mathematics.gradients.projection import LayerProjection
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL

Example = tuple[list[int], list[int]]
"""Token ids and labels of one example, unpadded."""


def relative_error(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||, absolute where the expectation is zero."""
    scale = float(torch.linalg.vector_norm(expected.double()))
    return float(torch.linalg.vector_norm(found.double() - expected.double())) / (scale or 1.0)


# --- Gradients ---------------------------------------------------------------------------------------------------


def token_loss(logits: Float[Tensor, "T V"], labels: Sequence[int]) -> Tensor:
    """Sum over target tokens of -log softmax, token by token."""
    return sum(
        (-torch.log_softmax(logits[t], dim=-1)[label] for t, label in enumerate(labels[1:]) if label != IGNORED_LABEL),
        start=logits.sum() * 0.0,
    )


def autograd_gradients(
    model: nn.Module, examples: Sequence[Example], projections: Sequence[LayerProjection]
) -> dict[str, Float[Tensor, "n d1 d2"]]:
    """P_in^T (dL/dW) P_out in FP64: each example alone, unpadded, the weight gradient formed by plain autograd."""
    model = copy.deepcopy(model).double().eval()
    modules = dict(model.named_modules())
    names = [projection.layer.name for projection in projections]
    weights = [modules[name].weight.requires_grad_(True) for name in names]
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for ids, labels in examples:
        loss = token_loss(model(input_ids=torch.tensor([ids])).logits[0], labels)
        for projection, module_name, gradient in zip(
            projections, names, torch.autograd.grad(loss, weights), strict=True
        ):
            # nn.Linear keeps its weight as [O, I], Conv1D as [I, O].
            g = gradient.T if isinstance(modules[module_name], nn.Linear) else gradient
            p_in, p_out = dense_projection(projection)
            rows[module_name].append(p_in.T @ g @ p_out)
    return {name: torch.stack(gradients) for name, gradients in rows.items()}


def token_covariances(
    model: nn.Module, examples: Sequence[Example], projections: Sequence[LayerProjection]
) -> dict[str, tuple[Tensor, Tensor, int]]:
    """Sums over tokens of x~ x~^T and y~ y~^T in FP64 and the tokens, each example alone and unpadded."""
    model = copy.deepcopy(model).double().eval()
    modules = dict(model.named_modules())
    found = {p.layer.name: [torch.zeros(p.d1, p.d1).double(), torch.zeros(p.d2, p.d2).double(), 0] for p in projections}
    for ids, labels in examples:
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        hooks = [modules[name].register_forward_hook(_keeping(seen, name)) for name in found]
        loss = token_loss(model(input_ids=torch.tensor([ids])).logits[0], labels)
        for hook in hooks:
            hook.remove()
        for projection in projections:
            name = projection.layer.name
            x, y = seen[name]
            (dy,) = torch.autograd.grad(loss, y, retain_graph=True)
            p_in, p_out = dense_projection(projection)
            x, dy = x[0].detach() @ p_in, dy[0] @ p_out
            found[name] = [found[name][0] + x.T @ x, found[name][1] + dy.T @ dy, found[name][2] + len(ids)]
    return {name: tuple(sums) for name, sums in found.items()}


def _keeping(seen: dict[str, tuple[Tensor, Tensor]], name: str) -> Callable[..., None]:
    return lambda _module, inputs, output: seen.update({name: (inputs[0], output)})


def dense_projection(projection: LayerProjection) -> tuple[Tensor, Tensor]:
    """P_in and P_out in FP64, the identity written out."""
    return tuple(
        torch.eye(width, dtype=torch.float64) if p is None else p.double()
        for p, width in ((projection.p_in, projection.layer.d_in), (projection.p_out, projection.layer.d_out))
    )


def padded_batch(examples: Sequence[Example], width: int, side: str, filler: int = 5) -> TokenBatch:
    """A batch padded to `width` on one side; the padding holds a real token, so that only the mask can hide it."""
    ids, masks, labels = [], [], []
    for example_ids, example_labels in examples:
        n = len(example_ids)
        pad = width - n
        rows = ([filler] * pad, [False] * pad, [IGNORED_LABEL] * pad)
        real = (example_ids, [True] * n, example_labels)
        first, second = (rows, real) if side == "left" else (real, rows)
        for out, a, b in zip((ids, masks, labels), first, second, strict=True):
            out.append([*a, *b])
    return TokenBatch(torch.tensor(ids), torch.tensor(masks), torch.tensor(labels))


# --- Projections and factors -------------------------------------------------------------------------------------


def signs(seed: int, layer: str, side: str, width: int, d: int) -> np.ndarray:
    """+-1/sqrt(d), bit by bit: bit j of the stream is bit j % 8 (lowest first) of byte j // 8."""
    stream = hashlib.shake_256(f"lorif-signs-1\0{seed}\0{layer}\0{side}".encode()).digest(width * d // 8 + 1)
    bits = [stream[j // 8] >> (j % 8) & 1 for j in range(width * d)]
    return np.array([(1 if bit else -1) / math.sqrt(d) for bit in bits]).reshape(width, d)


def best_rank_error(g: Float[Tensor, "d1 d2"], c: int) -> float:
    """The Frobenius error of the best rank-c approximation: the singular values that it leaves out."""
    return float(torch.linalg.svdvals(g.double())[c:].square().sum().sqrt())


def decode_with_numpy(data: bytes, codec: str, d1: int, d2: int) -> tuple[np.ndarray, np.ndarray]:
    """One example's u [d1, c] and v [d2, c] from the documented bytes, with numpy alone."""
    if codec == "bf16":  # the upper half of a little-endian FP32
        numbers = (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    elif codec == "fp32":
        numbers = np.frombuffer(data, dtype="<f4")
    else:
        return _decode_records(data, codec, d1, d2)
    c = len(numbers) // (d1 + d2)
    return numbers[: d1 * c].reshape(d1, c), numbers[d1 * c :].reshape(d2, c)


def _decode_records(data: bytes, codec: str, d1: int, d2: int) -> tuple[np.ndarray, np.ndarray]:
    per_byte = {"int8": 1, "int4": 2, "sign": 8}[codec]
    first, second = -(-d1 // per_byte), -(-d2 // per_byte)
    u, v = [], []
    for start in range(0, len(data), 4 + first + second):
        (scale,) = np.frombuffer(data, "<f4", 1, start)
        for side, offset, count, d in ((u, start + 4, first, d1), (v, start + 4 + first, second, d2)):
            packed = np.frombuffer(data, np.uint8, count, offset)
            if codec == "int8":
                codes = packed.view(np.int8)
            elif codec == "int4":
                codes = np.stack([packed & 15, packed >> 4], 1).ravel().astype(np.int8) - 8
            else:
                codes = np.unpackbits(packed, bitorder="little").astype(np.int8) * 2 - 1
            side.append(codes[:d] * np.sqrt(scale))
    return np.stack(u, 1), np.stack(v, 1)


# --- Curvature and scores ----------------------------------------------------------------------------------------


def gradient_matrix(factors: GradientFactors) -> Float[Tensor, "n D"]:
    """vec(u v^T) of each example, in FP64."""
    return (factors.u.double() @ factors.v.double().mT).flatten(1)


def eigenpairs(gradients: Float[Tensor, "n D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, "D D"]]:
    """All eigenvalues, largest first, and eigenvectors of G^T G in FP64."""
    g = gradients.double()
    w, v = torch.linalg.eigh(g.T @ g)
    return w.flip(0).clamp(min=0), v.flip(1)


def dense_inverse(gradients: Float[Tensor, "n D"], lam: float) -> Float[Tensor, "D D"]:
    """(G^T G + lam I)^-1 in FP64."""
    g = gradients.double()
    return torch.linalg.inv(g.T @ g + lam * torch.eye(g.shape[1], dtype=torch.float64))


def dense_scores(
    queries: Mapping[str, Float[Tensor, "Q D"]], train: Mapping[str, Float[Tensor, "n D"]], damping: Mapping[str, float]
) -> Float[Tensor, "Q n"]:
    """Sum over layers of G_q^T (G^T G + lam I)^-1 G_i with the whole inverse written out."""
    return torch.stack(
        [queries[name].double() @ dense_inverse(g, damping[name]) @ g.double().T for name, g in train.items()]
    ).sum(0)


def paper_scores(query: GradientFactors, train: GradientFactors, v: Tensor, w: Tensor, lam: float) -> Tensor:
    """One layer's truncated scores in the paper's form, with the query as factors too.

    (1 / lam) [ sum_ab (u_qa . u_ib)(v_qa . v_ib) - sum_j w_j / (w_j + lam) g'_qj g'_ij ],  g' = V^T vec(G).
    """
    products = torch.einsum("qxa,nxb,qya,nyb->qn", query.u, train.u, query.v, train.v)
    return (products - (gradient_matrix(query) @ v * (w / (w + lam))) @ (gradient_matrix(train) @ v).T) / lam


def extremes(scores: Sequence[float], k: int, *, highest: bool) -> list[int]:
    """Positions of the k most extreme scores; a tie goes to the earlier position."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i] if highest else scores[i], i))[:k]
