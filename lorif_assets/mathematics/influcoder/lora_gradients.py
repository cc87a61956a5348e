"""Per-sample gradients of a LoRA adapter's parameters, whole batches at a time, by hooks.

An adapter adds (alpha / rank) B A x to a layer's output. A fresh one has B = 0, hence no gradient with respect to A, and
for B the one-sided random projection (alpha / rank) sum_t dY_t (A x_t)^T of the layer's weight gradient. Once B has been
trained, both halves carry gradient. A and B are linear layers of their own, so both are collected like those of any layer.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import LayerError, Sight, TrackedLayer, linear_weights, select_layers
from lorif_assets.mathematics.gradients.projection import LayerProjection
from lorif_assets.mathematics.influcoder.count_sketch import CountSketch

_HALF_A, _HALF_B = "lora_A", "lora_B"


def add_fresh_adapter(model: nn.Module, rank: int, seed: int) -> None:
    """Put a LoRA adapter (A random from a seed, B zero, alpha = 2 rank, no dropout) on every linear layer of the blocks.

    The model is changed in place; what it computes stays the same.

    Raises:
        LayerError: no block has a linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    weights, modules = linear_weights(model), dict(model.named_modules())
    # Beside experts with fused weights, or routers, an adapter of peft's cannot stand.
    layers = [layer.name for layer in select_layers(model) if weights[layer.name].sight is Sight.MODULE]
    # `Conv1D` keeps its weight as [input, output].
    transposed = not isinstance(modules[layers[0]], nn.Linear)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=layers, fan_in_fan_out=transposed, bias="none"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)


def adapter_layers(model: nn.Module) -> list[TrackedLayer]:
    """Return the halves of a model's adapter that carry gradient: every B, and A wherever B is not zero.

    Raises:
        LayerError: the model has no LoRA adapter.
    """
    found = []
    for name, module in model.named_modules():
        parent, _, adapter = name.rpartition(".")
        if not isinstance(module, nn.Linear) or not parent.endswith((_HALF_A, _HALF_B)):
            continue
        b_half = model.get_submodule(f"{parent.removesuffix(_HALF_A).removesuffix(_HALF_B)}{_HALF_B}.{adapter}")
        if parent.endswith(_HALF_B) or any(bool(weight.any()) for weight in b_half.parameters()):
            found.append(TrackedLayer(name, module.in_features, module.out_features))
    if not found:
        raise LayerError(f"{type(model).__name__} has no LoRA adapter whose gradients could be collected")
    return found


def sketched_gradients(
    model: nn.Module, batches: Iterator[tuple[Sequence[int], TokenBatch]], n: int, dim: int, seed: int
) -> Float[Tensor, "n dim"]:
    """Return the influence features of n samples: CountSketch of the adapter gradient of each, scaled to unit norm.

    A sample's loss is summed over its target tokens: a mean would differ by a factor, which the norm takes out.

    Args:
        model: a causal language model with an adapter.
        batches: positions among the samples, and the batch; together they cover all n.
        n: samples.
        dim: buckets of the sketch.
        seed: of the sketch.

    Returns:
        FP32, on the CPU; a sample whose gradient is zero or not finite has a row of zeros or NaN.
    """
    layers = adapter_layers(model)
    sketch = CountSketch.draw({layer.name: layer.d_in * layer.d_out for layer in layers}, dim, seed, _device(model))
    features = torch.empty(n, dim)
    unprojected = [LayerProjection(layer, layer.d_in, layer.d_out, None, None) for layer in layers]
    with GradientCollector(model, unprojected) as collector:
        for positions, batch in batches:
            gradients = collector.collect(batch.to(_device(model))).gradients
            rows = sketch.apply({layer.name: gradients[layer.name] for layer in layers})
            features[list(positions)] = nn.functional.normalize(rows, dim=1).float().cpu()
    return features


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
