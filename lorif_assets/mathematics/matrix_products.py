"""Matrix products: FP32 ones on a CPU by the faster of the two libraries that torch carries, exact ones with signs.

On x86 torch multiplies FP32 matrices with MKL. On AMD's processors MKL reaches less than half the rate of oneDNN, which
torch carries too but uses for BF16 only (measured: benchmarks/README.md, "Matrix products"). Both compute in FP32, with
different orders of summation. Elsewhere, for small or other matrices, and always on a GPU, the products are torch's own.
`_onednn_multiplies` alone decides which library multiplies.

A GPU multiplies BF16 matrices with FP32 sums at 15 times the rate of FP32 ones. A sign is exact in BF16, and an FP32 number
is the sum of three BF16 ones, so that its products with signs need nothing slower.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lorif_assets.mathematics import accelerators

# Multiplications above which a call of oneDNN, which takes ten microseconds to set up, pays off (measured).
_REPAID = 1 << 20
_ROWS_ADDED = 4_096


def product(a: Float[Tensor, "*batch k"], b: Float[Tensor, "*pairs k n"]) -> Float[Tensor, "*batch n"]:
    """Return a @ b: of all rows of a with one matrix b, or of each pair of matrices where b is a stack [p, k, n]."""
    if b.ndim == 3:
        return _product_of_pairs(a, b)
    return onednn_linear(a, b.mT, None) if _onednn_multiplies(a, b.mT) and not _needs_gradient(a, b) else a @ b


def product_from_left(a: Float[Tensor, "m k"], stack: Float[Tensor, "p k n"]) -> Float[Tensor, "p m n"]:
    """Return a @ b for each matrix b of a stack."""
    if accelerators.is_accelerator(stack.device):
        return torch.bmm(a.expand(len(stack), *a.shape), stack)
    return product(stack.mT, a.mT).mT


def sum_of_squares(stack: Float[Tensor, "p m n"]) -> Float[Tensor, "m n"]:
    """Return the squares of a stack's matrices, number by number, summed over the matrices."""
    if accelerators.is_accelerator(stack.device):
        # One pass over the numbers.
        norms: Tensor = torch.linalg.vector_norm(stack, dim=0)
        return norms.square()
    return stack.square().sum(dim=0)


def put_product(
    place: Float[Tensor, "m n"],
    a: Float[Tensor, "m k"],
    b: Float[Tensor, "k n"],
    bias: Float[Tensor, " n"] | None = None,
) -> None:
    """Write a @ b, and a bias added to its rows, into a matrix, without a gradient; the bias must be contiguous."""
    if _onednn_multiplies(a, b.mT):
        place.copy_(onednn_linear(a, b.mT, bias))
    elif bias is None:
        torch.mm(a, b, out=place)
    else:
        torch.addmm(bias, a, b, out=place)


def add_product(total: Float[Tensor, "m n"], a: Float[Tensor, "m k"], b: Float[Tensor, "k n"]) -> None:
    """Add a @ b to a matrix in place, without another matrix of its size."""
    if not _onednn_multiplies(a, b.mT):
        total.addmm_(a, b)
        return
    for rows, of_a in zip(total.split(_ROWS_ADDED), a.split(_ROWS_ADDED), strict=True):
        rows.add_(product(of_a, b))


def sign_product(x: Float[Tensor, "*batch k"], signs: Float[Tensor, "k n"]) -> Float[Tensor, "*batch n"]:
    """Return x @ signs with sums in FP32, for signs in BF16.

    Exact products of BF16 numbers; FP32 ones, and whatever else is no wider, are multiplied as sums of three BF16 parts,
    which hold all their digits, or of two within `tf32_products`, which hold more than TF32 does.
    """
    rows = x.reshape(-1, x.shape[-1])
    first, *rest = [rows] if x.dtype == torch.bfloat16 else _bf16_parts(rows.float())
    total = _bf16_product(first, signs)
    for part in rest:
        total += _bf16_product(part, signs)
    return total.view(*x.shape[:-1], signs.shape[1])


@contextmanager
def tf32_products(allowed: bool) -> Iterator[None]:
    """Let a GPU multiply FP32 matrices in TF32, with 10 bits after the point in place of 23, where it is allowed."""
    before = torch.backends.cuda.matmul.fp32_precision
    if allowed:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def products_of_frozen_layers(model: nn.Module) -> AbstractContextManager[object]:
    """Return a context in which a model's linear layers with frozen weights multiply as `product` does, in both passes.

    It may be left before the backward pass. It does nothing if torch's products are faster, or if a weight is on a GPU.
    """
    is_on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return _FrozenLayers() if is_on_cpu and _onednn_is_faster() else nullcontext()


def _bf16_parts(x: Float[Tensor, "m k"]) -> list[Float[Tensor, "m k"]]:
    """Return BF16 matrices whose sum is x: three, or two where TF32 would do."""
    parts = [x.to(torch.bfloat16)]
    for _ in range(1 if torch.backends.cuda.matmul.fp32_precision == "tf32" else 2):
        x = x - parts[-1]
        parts.append(x.to(torch.bfloat16))
    return parts


def _bf16_product(a: Float[Tensor, "m k"], b: Float[Tensor, "k n"]) -> Float[Tensor, "m n"]:
    # The meta device stands for a GPU wherever costs are counted.
    if a.device.type == "meta" or (a.device.type == "cuda" and torch.version.hip is None):
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def _product_of_pairs(a: Float[Tensor, "p m k"], b: Float[Tensor, "p k n"]) -> Float[Tensor, "p m n"]:
    if len(a) and _onednn_multiplies(a[0], b[0].mT) and not _needs_gradient(a, b):
        return torch.stack([onednn_linear(of_a, of_b.mT, None) for of_a, of_b in zip(a, b, strict=True)])
    return torch.bmm(a, b)


class _FrozenLayers(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if not kwargs:
            if func is functional.linear:
                x, weight, bias = args if len(args) == 3 else (*args, None)
                if _is_taken(x, weight, bias):
                    return _FrozenLinear.apply(x, weight, bias)
            # GPT-2's layers keep their weights the other way round.
            elif func is torch.addmm and len(args) == 3 and _is_taken(args[1], args[2].mT, args[0]):
                return _FrozenLinear.apply(args[1], args[2].mT, args[0])
        return func(*args, **(kwargs or {}))


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)
        return onednn_linear(x, weight, bias)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (weight,) = ctx.saved_tensors
        return onednn_linear(tangents[0], weight, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return product(gradients[0], weight), None, None


def onednn_linear(x: Tensor, weight: Float[Tensor, "out in"], bias: Tensor | None) -> Tensor:
    """Return x weight^T + bias by oneDNN, without a gradient; the bias must be contiguous, all other strides are free."""
    with torch.no_grad():
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _onednn_multiplies(x: Tensor, weight: Float[Tensor, "out in"]) -> bool:
    """Whether oneDNN computes x weight^T: if it is FP32 on the CPU, and large enough to pay off."""
    return (
        x.numel() * weight.shape[0] >= _REPAID
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and _onednn_is_faster()
    )


def _needs_gradient(*operands: Tensor) -> bool:
    return torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)


def _is_taken(x: Tensor, weight: Float[Tensor, "out in"], bias: Tensor | None) -> bool:
    """Whether a linear layer's weights are frozen, and oneDNN multiplies them faster."""
    fits = bias is None or (
        not bias.requires_grad
        and bias.dtype == weight.dtype
        and bias.shape == weight.shape[:1]
        # oneDNN reads consecutive numbers in memory, whatever the strides say.
        and bias.is_contiguous()
    )
    # Quantised weights are tensors of kinds of their own.
    is_plain = weight.ndim == 2 and not weight.requires_grad and type(weight) in (Tensor, nn.Parameter)
    is_plain = is_plain and not torch.is_autocast_enabled("cpu")
    return fits and is_plain and _onednn_multiplies(x, weight)


@cache
def _onednn_is_faster() -> bool:
    # torch's compiler calls this operator for linear layers; torch has no public name for it.
    is_there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return is_there and "AMD" in str(torch.cpu.get_capabilities().get("cpu_name"))
