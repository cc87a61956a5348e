"""A checkpoint spread over two devices: every tensor is where it is needed, and the numbers are those of one device."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import ShardFactors, factor_rows
from lorif_assets.attribution.fitting.fit_bases import covariances
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.evaluation.methods.representations import mean_hidden_states
from lorif_assets.evaluation.retraining.query_losses import example_losses
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.evaluation.tail_patch import patched
from lorif_assets.mathematics.factors.codec import FactorCodec, decode
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.influcoder.lora_gradients import add_fresh_adapter, sketched_gradients
from lorif_assets.models.device_map import spread_over
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress
from tests.models.two_devices import CARD, TwoDevices, register_the_card

LENGTHS = (5, 9, 7, 3)
BATCH = BatchSettings(tokens=30)
ARCHITECTURES = ("gpt2", "llama")
Step = Callable[[AttributedModel], dict[str, torch.Tensor]]
GROUPS = {"first-the-card": (CARD, "cpu"), "first-the-cpu": ("cpu", CARD)}


def tiny_model(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 17, "max_position_embeddings": 9, "bos_token_id": 0, "eos_token_id": 0}
    if architecture == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_layer=4, n_embd=8, n_head=2, initializer_range=0.4, **sizes))
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=8,
                intermediate_size=12,
                num_hidden_layers=4,
                num_attention_heads=2,
                initializer_range=0.4,
                **sizes,
            )
        )
    return model.double()


def examples() -> list[TokenizedExample]:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 17, length) for length in LENGTHS]
    return [TokenizedExample(f"e{row}", row, tokens, tokens) for row, tokens in enumerate(ids)]


def attributed_on(architecture: str, names: tuple[str, ...]) -> AttributedModel:
    """A model on one device, or spread over two of which neither holds it."""
    model, devices = tiny_model(architecture), DeviceGroup.of(*names)
    if len(devices) > 1:
        with patch("lorif_assets.models.device_map.free_bytes", return_value=0.9 * model.get_memory_footprint()):
            found = spread_over(model, devices, Path("tiny"))
        assert set(found.values()) == set(names)
        model = dispatch_model(model, {part: torch.device(name) for part, name in found.items()})
    else:
        model = model.to(devices.first)
    # With the head: GPT-2's has the weight of the embeddings, Llama's is alone at the end.
    projections = [layer_projection(layer, Projection(factor=2, seed=0)) for layer in select_layers(model, ["*"])]
    shapes = {projection.layer.name: (projection.d1, projection.d2) for projection in projections}
    return AttributedModel(
        CheckpointRecord("random", "weights", "tokenizer", architecture, 0, None, shapes),
        Recipe(projection_factor=2, factor_dtype="fp32", rank=4),
        model.eval(),
        None,  # type: ignore[arg-type]
        projections,
        "projection",
        devices,
    )


def on_first(attributed: AttributedModel, tensor: torch.Tensor) -> torch.Tensor:
    """Hand a copy on, if it is on the device where results are to be."""
    assert tensor.device == attributed.device
    return tensor.detach().cpu().clone()


def collected(attributed: AttributedModel) -> dict[str, torch.Tensor]:
    """Losses and gradients of each example."""
    found: dict[str, torch.Tensor] = {}
    for positions, batch in attributed.gradients(examples(), BATCH.tokens):
        for name, rows in {**batch.gradients, "losses": batch.losses}.items():
            found |= {f"{name} {at}": row for at, row in zip(positions, on_first(attributed, rows), strict=True)}
    return found


def fitted(attributed: AttributedModel, labels: Literal["data", "model"] = "data") -> dict[str, torch.Tensor]:
    """K-FAC's covariances."""
    attributed = replace(attributed, recipe=attributed.recipe.model_copy(update={"kfac_labels": labels}))
    found = covariances(attributed, examples(), BATCH, progress(), 0)
    return {
        f"{layer} {side}": on_first(attributed, getattr(of_layer, side))
        for layer, of_layer in found.items()
        for side in ("inputs", "outputs")
    }


def factorised(attributed: AttributedModel) -> dict[str, torch.Tensor]:
    """What factors of each example come to, whitened, and the sums of squares."""
    bases = {
        layer: KfacBases(*(side.double().to(attributed.device) for side in sides(*shape)), damping=0.1)
        for layer, shape in attributed.record.layer_shapes.items()
    }
    found = factor_rows(attributed, examples(), bases, BATCH, progress())
    squares = {layer: on_first(attributed, tensor) for layer, tensor in found.squares.items()}
    return squares | {
        f"{layer} factors": products(found, layer, shape) for layer, shape in attributed.record.layer_shapes.items()
    }


def products(found: ShardFactors, layer: str, shape: tuple[int, int]) -> torch.Tensor:
    """u v^T of every example: the factors themselves are not unique where a gradient's rank is lower."""
    encoded = torch.tensor([list(value) for value in found.rows[layer].to_pylist()], dtype=torch.uint8)
    return decode(encoded, FactorCodec.FP32, *shape).dense()


def sides(d1: int, d2: int) -> tuple[torch.Tensor, ...]:
    return torch.eye(d1), torch.eye(d2), torch.arange(d1), torch.arange(d2)


def patched_losses(attributed: AttributedModel) -> dict[str, torch.Tensor]:
    """Losses before, in and after a step on an example."""
    model, batch = attributed.model, attributed.batch(examples(), [0])
    losses = partial(example_losses, model, examples(), BATCH.tokens, attributed.device)
    before = losses()
    with patched(model, lambda: model(input_ids=batch.input_ids, labels=batch.labels).loss, 1e-2):
        inside = losses()
    return {"before": before, "inside": inside, "after": losses()}


def represented(attributed: AttributedModel) -> dict[str, torch.Tensor]:
    """Mean hidden states."""
    inputs: Any = SimpleNamespace(attributed=attributed, settings=SimpleNamespace(batch=BATCH))
    return {"states": mean_hidden_states(inputs, examples())}


def sketched(attributed: AttributedModel) -> dict[str, torch.Tensor]:
    """Sketches of the gradients of an adapter."""
    add_fresh_adapter(attributed.model, 2, 0)
    positions = range(len(LENGTHS))
    batches = iter([(positions, attributed.batch(examples(), positions))])
    return {"features": sketched_gradients(attributed.model, batches, len(LENGTHS), 32, 0)}


def progress() -> Progress:
    return Progress("examples", len(LENGTHS), "examples")


STEPS: list[Step] = [collected, fitted, factorised, patched_losses, represented, sketched]


def outcome(step: Step, architecture: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Compute a step, and return its results as arrays: tensors of the card do not travel between processes."""
    with TwoDevices():
        found = step(attributed_on(architecture, names))
    return {name: tensor.numpy() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def machine() -> Iterator[Executor]:
    """A process that has a card."""
    with ProcessPoolExecutor(1, get_context("spawn"), register_the_card) as executor:
        yield executor


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_spread_checkpoint_gives_what_it_gives_on_one_device(
    machine: Executor, step: Step, architecture: str, group: tuple[str, ...]
) -> None:
    assert_same(machine, step, architecture, group)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_labels_are_drawn_from_the_logits_of_a_spread_checkpoint(machine: Executor, architecture: str) -> None:
    # The card has no random numbers.
    assert_same(machine, partial(fitted, labels="model"), architecture, ("cpu", CARD))


def test_what_two_devices_refuse_is_refused_here(machine: Executor) -> None:
    with pytest.raises(RuntimeError, match=r"aten.mm.default of tensors on card:0 and cpu"):
        machine.submit(mixed).result()


def mixed() -> None:
    with TwoDevices():
        torch.ones(2, 2, device=CARD) @ torch.ones(2, 2)


def assert_same(machine: Executor, step: Step, architecture: str, group: tuple[str, ...]) -> None:
    expected = on_one_device(machine, step, architecture)
    found = machine.submit(outcome, step, architecture, group).result()
    assert found.keys() == expected.keys()
    for name, numbers in found.items():
        error = 1e-12 if numbers.dtype == np.float64 else 1e-5
        np.testing.assert_allclose(numbers, expected[name], rtol=error, atol=error, err_msg=name)


@cache
def on_one_device(machine: Executor, step: Step, architecture: str) -> dict[str, Any]:
    return machine.submit(outcome, step, architecture, ("cpu",)).result()
