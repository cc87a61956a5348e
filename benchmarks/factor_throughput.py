"""Stage 1 beside its floor: tokens per second of gradient factors, and of the bare model's two passes on the same batches.

The floor is a forward pass and a backward pass of activation gradients alone: weights frozen, input embeddings
requiring grad, the logits' gradient by its formula, which autograd takes longer for. The `own floor` is the same with the
model's linear layers multiplied by the library that the project takes, which on AMD processors is another than torch's. Then
come, each with all before it: `hooks` that project every token, `gradients` G in the cheapest order, which projects less,
`factorised` ones (whitened before, with EK-FAC), and the `whole` of `factor_rows`, which takes layers of equal shape together,
encodes, and makes the rows of the table. The model is of GPT-2's or Llama's shape with random weights, and the examples are
random tokens. All run in turn; shares are ratios of CPU seconds, which other work on the machine changes little, and ratios of
wall seconds stand beside them: those are to be read of an accelerator, which works by itself. MFU is 4 FLOP for each token and
parameter of the linear layers and the head, the bare model's two passes, over `peak_tflops` of the device (0: not told).

    python benchmarks/factor_throughput.py --device cuda:0 --dtype bfloat16 --architecture llama --width 2048 --blocks 24
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from measurements import (
    Seconds,
    interleaved,
    markdown_table,
    peak_memory,
    report,
    setting_and_output,
    synchronise,
    time_by_kind,
)

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import factor_rows
from lorif_assets.attribution.fitting.fit_bases import covariances
from lorif_assets.attribution.fitting.layer_ranks import layer_ranks
from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe
from lorif_assets.attribution.stored.bases import FrozenBases
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample, n_tokens
from lorif_assets.mathematics.accelerators import is_accelerator
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.factors.low_rank import low_rank_factors
from lorif_assets.mathematics.gradients.collector import TokenBatch
from lorif_assets.mathematics.gradients.contraction import cheapest_order, multiplications
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import fingerprint, layer_projection
from lorif_assets.mathematics.gradients.token_losses import losses_of_targets, next_tokens
from lorif_assets.mathematics.matrix_products import products_of_frozen_layers, tf32_products
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

FLOOR, OWN_FLOOR, HOOKS, GRADIENTS = "floor", "own floor", "hooks", "gradients"
FACTORISED, WHOLE = "factorised", "whole"
LOG = logging.getLogger("benchmark")


@dataclass(frozen=True)
class Setting:
    """Size of the model and of the data; GPT-2 small is 12 blocks of width 768 with 12 heads and a vocabulary of 50,257."""

    architecture: str = field(default="gpt2", metadata={"choices": ("gpt2", "llama")})
    dtype: str = field(default="float32", metadata={"choices": ("float32", "bfloat16")})
    blocks: int = 2
    width: int = 256
    heads: int = 4
    kv_heads: int = 0
    vocabulary: int = 4_096
    tokens: int = 256
    examples: int = 16
    batch_tokens: int = 2_048
    projection_factor: int = 4
    bytes_per_example: int = 4_096
    recipes: str = "paper whitened"
    tf32: bool = False
    repeats: int = 3
    threads: int = 1
    device: str = "cpu"
    shortest: float = 0.5
    peak_tflops: float = 0.0
    profile: bool = False


def recipes(setting: Setting) -> dict[str, Recipe]:
    """Return the recipes that are timed, by a name."""
    left_to_the_model = Recipe(max_length=setting.tokens, tf32=setting.tf32)
    shared = Recipe(projection_factor=setting.projection_factor, max_length=setting.tokens, tf32=setting.tf32)
    named = {
        "paper": shared.changed(curvature="svd", rank=1, factor_dtype="bf16"),
        "whitened": shared.model_copy(update={"bytes_per_example": setting.bytes_per_example}),
        "default": left_to_the_model,
    }
    return {name: named[name] for name in setting.recipes.split()}


def random_examples(setting: Setting) -> list[TokenizedExample]:
    """Return examples of random tokens, from the `shortest` share of the length to all of it."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(int(setting.tokens * setting.shortest), setting.tokens + 1, setting.examples)
    ids = [rng.integers(0, setting.vocabulary, length) for length in lengths]
    return [TokenizedExample(str(row), row, tokens, tokens) for row, tokens in enumerate(ids)]


def random_model(setting: Setting, recipe: Recipe) -> AttributedModel:
    """Return a model with random weights, whose gradients the recipe tells how to keep."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    torch.manual_seed(0)
    if setting.architecture == "llama":
        config: GPT2Config | LlamaConfig = LlamaConfig(
            num_hidden_layers=setting.blocks,
            hidden_size=setting.width,
            intermediate_size=8 * setting.width // 3 // 64 * 64 or 64,
            num_attention_heads=setting.heads,
            num_key_value_heads=setting.kv_heads or setting.heads,
            vocab_size=setting.vocabulary,
            max_position_embeddings=setting.tokens,
            bos_token_id=0,
            eos_token_id=0,
        )
    else:
        config = GPT2Config(
            n_layer=setting.blocks,
            n_embd=setting.width,
            n_head=setting.heads,
            vocab_size=setting.vocabulary,
            bos_token_id=0,
            eos_token_id=0,
            n_positions=setting.tokens,
        )
    devices = DeviceGroup.of(setting.device)
    with devices.first:
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, setting.dtype))
    layers = select_layers(model, recipe.include_layers)
    projection = fitted_recipe(recipe, layers).projection
    shapes = {layer.name: projection.shape(layer) for layer in layers}
    record = CheckpointRecord(
        "random", "weights", "tokenizer", setting.architecture, model.num_parameters(), None, shapes
    )
    projections = [layer_projection(layer, projection) for layer in layers]
    # No text is tokenized, so that the model needs no tokenizer.
    return AttributedModel(record, recipe, model, None, projections, fingerprint(layers, projection), devices)  # type: ignore[arg-type]


def fitted_bases(
    attributed: AttributedModel, examples: list[TokenizedExample], batch: BatchSettings
) -> tuple[AttributedModel, dict[str, KfacBases]]:
    """Return the model with the ranks of its layers, and the bases that its gradients are whitened in, if any."""
    if attributed.recipe.curvature == "svd":
        return attributed, {}
    with Progress("bases", n_tokens(examples), "tok", LOG) as progress:
        held = covariances(attributed, examples, batch, progress, seed=0)
    damping = attributed.recipe.whitening_damping
    bases = {layer: of_layer.bases(damping) for layer, of_layer in held.items()}
    with Progress("ranks", n_tokens(examples), "tok", LOG) as progress:
        found = layer_ranks(attributed, examples, bases, batch, progress)
    ranks = {layer: of_layer.rank for layer, of_layer in found.items()}
    frozen = FrozenBases("benchmark", ranks, {}, damping)
    return replace(attributed, record=replace(attributed.record, frozen_bases=frozen)), bases


def bare_passes(
    attributed: AttributedModel, batches: Sequence[TokenBatch], products: AbstractContextManager[object]
) -> None:
    """Run the bare model's forward pass, and its backward pass of activation gradients, over batches: the floor."""
    model = attributed.model.eval().requires_grad_(False)
    for tokens in batches:
        embedded = model.get_input_embeddings()(tokens.input_ids).requires_grad_(True)
        with products:
            output = model(inputs_embeds=embedded, attention_mask=tokens.attention_mask.long(), use_cache=False)
        _, gradient = losses_of_targets(output.logits.detach(), next_tokens(tokens.labels))
        output.logits.backward(gradient)
    synchronise(attributed.device)


def works(
    attributed: AttributedModel, bases: Mapping[str, KfacBases], examples: list[TokenizedExample], batch: BatchSettings
) -> dict[str, Callable[[], object]]:
    """Return what is timed, by its name."""
    frozen = attributed.record.frozen_bases
    ranks = frozen.ranks if frozen else dict.fromkeys(attributed.record.layer_shapes, attributed.recipe.rank)
    batches = [attributed.batch(examples, at) for at in attributed.batches(examples, batch.tokens)]
    is_accelerated = is_accelerator(attributed.device)

    def hooks() -> None:
        with attributed.collector() as collector:
            for tokens in batches:
                collector.observe(tokens, lambda _layer, _calls: None)
        synchronise(attributed.device)

    def gradients() -> None:
        with attributed.collector() as collector:
            for tokens in batches:
                collector.stream(tokens, lambda _layer, _rows, _gradients: None, batch.gradient_numbers)
        synchronise(attributed.device)

    def factorise(layer: str, _rows: slice, gradients: torch.Tensor) -> None:
        if layer in bases:
            gradients = bases[layer].rotate(gradients)
            gradients *= bases[layer].scale
        low_rank_factors(gradients, ranks[layer])

    def factorised() -> None:
        with attributed.collector() as collector:
            for tokens in batches:
                collector.stream(tokens, factorise, batch.gradient_numbers)
        synchronise(attributed.device)

    def whole() -> None:
        with Progress("factors", n_tokens(examples), "tok", LOG) as progress:
            factor_rows(attributed, examples, bases, batch, progress)

    def floor(products: AbstractContextManager[object]) -> None:
        with tf32_products(attributed.recipe.tf32):
            bare_passes(attributed, batches, products)

    return {
        FLOOR: lambda: floor(nullcontext()),
        # An accelerator has one library, and factorises the layers of a batch together, never one by one.
        **({} if is_accelerated else {OWN_FLOOR: lambda: floor(products_of_frozen_layers(attributed.model))}),
        HOOKS: hooks,
        GRADIENTS: gradients,
        **({} if is_accelerated else {FACTORISED: factorised}),
        WHOLE: whole,
    }


def multiplied_parameters(attributed: AttributedModel) -> int:
    """Return the parameters of the linear layers and the head."""
    head: int = attributed.model.get_output_embeddings().weight.numel()
    return head + sum(p.layer.d_in * p.layer.d_out for p in attributed.projections)


def mfu(attributed: AttributedModel, tokens_per_second: float, peak_tflops: float) -> float:
    """Return the FLOP of the bare model's two passes at a rate, as a share of what the device can do; 0 if that is not told."""
    return 4 * multiplied_parameters(attributed) * tokens_per_second / (peak_tflops * 1e12) if peak_tflops else 0.0


def gradient_flops(attributed: AttributedModel, tokens: int) -> float:
    """Return the multiplications of the gradients, projections included, as a share of the floor's linear layers and head."""
    bare = multiplied_parameters(attributed)
    gradients = sum(multiplications(p, tokens, cheapest_order(p, tokens)) for p in attributed.projections)
    # Forward and backward are one product each.
    return gradients / (2 * bare * tokens)


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Time every recipe, and return a row for each of its parts."""
    examples, batch = random_examples(setting), BatchSettings(tokens=setting.batch_tokens)
    tokens = n_tokens(examples)
    rows = []
    for name, recipe in recipes(setting).items():
        attributed, bases = fitted_bases(random_model(setting, recipe), examples, batch)
        padded = sum(len(at) * len(examples[at[0]].input_ids) for at in attributed.batches(examples, batch.tokens))
        frozen = attributed.record.frozen_bases
        ranks = sorted(frozen.ranks.values()) if frozen else [recipe.rank]
        timed = works(attributed, bases, examples, batch)
        taken = interleaved(timed, setting.repeats)
        if setting.profile:
            print(time_by_kind(attributed.device, timed[WHOLE]))
        before = Seconds(0.0, 0.0)
        for part, seconds in taken.items():
            rows.append(
                {
                    "recipe": name,
                    "ranks": f"{ranks[0]} to {ranks[-1]}" if ranks[0] != ranks[-1] else str(ranks[0]),
                    "part": part,
                    "tokens_per_cpu_second": tokens / seconds.cpu,
                    "share_of_floor": taken[FLOOR].cpu / seconds.cpu,
                    "share_of_own_floor": taken.get(OWN_FLOOR, taken[FLOOR]).cpu / seconds.cpu,
                    "share_of_floor_wall": taken[FLOOR].wall / seconds.wall,
                    "added_to_floor": (seconds.cpu - before.cpu) / taken[FLOOR].cpu,
                    "tokens_per_second": tokens / seconds.wall,
                    "mfu": mfu(attributed, tokens / seconds.wall, setting.peak_tflops),
                    "peak_device_mib": peak_memory(attributed.device, timed[part]) / 2**20,
                    "wall_seconds": seconds.wall,
                    "cpu_seconds": seconds.cpu,
                    "padding": 1 - tokens / padded,
                    "parameters": attributed.record.n_parameters,
                    "gradient_flops_of_floor": gradient_flops(attributed, setting.tokens),
                }
            )
            before = Seconds(0.0, 0.0) if part == FLOOR else seconds
    return rows


COLUMNS = {
    "recipe": "{recipe}",
    "ranks": "{ranks}",
    "up to": "{part}",
    "tokens per CPU s": "{tokens_per_cpu_second:,.0f}",
    "of the floor's rate": "{share_of_floor:.2f}",
    "by the clock": "{share_of_floor_wall:.2f}",
    "of the own floor's": "{share_of_own_floor:.2f}",
    "added, in floors": "{added_to_floor:.2f}",
    "flops of gradients, in floors": "{gradient_flops_of_floor:.2f}",
    "tokens/s": "{tokens_per_second:,.0f}",
    "MFU": "{mfu:.3f}",
    "peak, MiB of the device": "{peak_device_mib:,.0f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "factor_throughput")
    torch.set_num_threads(setting.threads)
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
