"""The memory of a model's two passes, without the model's memory: on tensors that have shapes and types, and no numbers."""

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lorif_assets.mathematics.gradients.expert_forms import experts_forward, fused_weights
from lorif_assets.mathematics.gradients.expert_products import grouped_product
from lorif_assets.mathematics.gradients.experts import FusedWeight, Routing
from lorif_assets.mathematics.gradients.frozen_model import require_grad
from lorif_assets.mathematics.gradients.head import possible_decoders
from lorif_assets.mathematics.gradients.layers import linear_weights, shares_of_tokens
from lorif_assets.mathematics.gradients.replaced_forward import replaced_forward


class _LiveBytes(TorchDispatchMode):
    """The bytes of all tensors that operations made inside, now and at most; views, also those of `others`, do not count."""

    def __init__(self, others: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._others = {tensor.untyped_storage()._cdata for tensor in others}
        self._storages: dict[int, ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages or key in self._others:
            return

        def forget(_: object) -> None:
            self.now -= size
            del self._storages[key]

        self._storages[key] = ref(storage, forget)
        self.now += size
        self.most = max(self.most, self.now)


def bytes_of_passes(model: nn.Module, tokens: int) -> int:
    """Return the most memory, beside the weights, of an example's passes through the decoder, weights frozen, in bytes.

    The operations are those of a CPU, whose attention keeps what a GPU's fused one keeps, and experts multiply as they do
    while gradients are collected. Where a model's code looks at numbers, the sides of its linear layers are counted instead.

    Args:
        model: its weights may be on the meta device.
        tokens: of the example. More examples of its length take that many times as much.
    """
    meta = copy.deepcopy(model).to("meta")
    try:
        # The modes are private to torch, but what its own compiler and memory estimates stand on.
        with _unsaid(), FakeTensorMode(allow_non_fake_inputs=True), ExitStack() as replaced:
            fake = meta.to_empty(device="cpu").requires_grad_(False).eval()
            decoder = next(possible_decoders(fake), fake)
            for module in fake.modules():
                if fused_weights(module):
                    forward = experts_forward(module, partial(_of_equal_parts, module))
                    replaced.enter_context(replaced_forward(module, forward))
            embeddings = fake.get_input_embeddings()  # type: ignore[operator]
            hook = embeddings.register_forward_hook(require_grad)
            ids = torch.zeros(1, tokens, dtype=torch.long)
            live = _LiveBytes([*fake.parameters(), *fake.buffers()])
            with live:
                output = decoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
                hidden = output[0]
                hidden.backward(torch.zeros_like(hidden))
            hook.remove()
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return tokens * _sides(model)
    return live.most


def _of_equal_parts(
    experts: nn.Module, weight: FusedWeight, _routing: Routing, x: Tensor, _multiply: Callable[[], Tensor]
) -> Tensor:
    """Make a product whose rows no number shares out among the experts: as many for each, which takes as much memory."""
    least, more = divmod(len(x), weight.n_experts)
    values = weight.values(experts)
    sizes = tuple(least + (expert < more) for expert in range(weight.n_experts))
    return grouped_product(x, values if weight.is_transposed else values.mT, sizes)


@contextmanager
def _unsaid() -> Iterator[None]:
    """Keep torch from printing the tracebacks of operations that it knows no shapes for; what is raised says it."""
    log = logging.getLogger(FakeTensorMode.__module__)
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _sides(model: nn.Module) -> int:
    """Return the bytes of a token's inputs and outputs of all linear layers that it reaches."""
    shares = shares_of_tokens(model)
    return math.ceil(
        sum(
            (weight.layer.d_in + weight.layer.d_out) * next(weight.module.parameters()).element_size() * shares[name]
            for name, weight in linear_weights(model).items()
        )
    )
