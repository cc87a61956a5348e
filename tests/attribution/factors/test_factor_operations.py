"""What factors ask of an accelerator, counted on the meta device: no numbers are computed, so no number can be waited for.

An operation that needs one on the host fails there, as would the rest of these tests.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import _EncodedFactors, factor_rows, run_batch
from lorif_assets.attribution.forecast.factor_cost import FactorCost, factor_cost
from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe
from lorif_assets.attribution.recipes.recipe_on_model import tracked_layers
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.gradients.collector import TokenBatch
from lorif_assets.mathematics.gradients.layers import TrackedLayer, select_layers
from lorif_assets.mathematics.gradients.projection import layer_projection
from lorif_assets.mathematics.operation_counts import H200, OperationCost, OperationCounts
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

META = torch.device("meta")
LENGTH = 24
# An operation with one of these words in its name goes through a batch's matrices one by one, or waits for the host.
LAPACK = {"linalg", "eigh", "eig", "qr", "geqrf", "orgqr", "ormqr", "svd", "cholesky", "lu", "solve", "triangular"}
WAITING = {"nonzero", "local", "item", "unique", "unique2", "equal", "select"}
HARMLESS = {"linalg_vector_norm", "index_select"}
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {"preset": "paper"},
    "without projection": {"projection_factor": 1, "whitening_rank": 4, "fisher_share": 0.25, "factor_rounds": 4},
    "whole gradients": {"projection_factor": 1, "rank": 4},
}


def small(kind: type[PreTrainedModel]) -> PreTrainedModel:
    if kind is GPT2LMHeadModel:
        config: Any = GPT2Config(n_layer=2, n_embd=48, n_head=2, vocab_size=64, n_positions=LENGTH)
    else:
        config = LlamaConfig(
            vocab_size=64, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2
        )
    with META:
        return kind(config)  # type: ignore[arg-type]


@cache
def small_cost(kind: type[PreTrainedModel], recipe: str, examples: int) -> OperationCost:
    return factor_cost(small(kind), Recipe(**RECIPES[recipe]), examples, LENGTH).whole


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", [GPT2LMHeadModel, LlamaForCausalLM])
def test_the_operations_do_not_grow_with_the_examples_of_a_batch(kind: type[PreTrainedModel], recipe: str) -> None:
    few, many = (small_cost(kind, recipe, examples) for examples in (4, 32))
    assert few.operations == many.operations
    assert many.all_flops > 4 * few.all_flops


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", [GPT2LMHeadModel, LlamaForCausalLM])
def test_no_operation_goes_through_matrices_one_by_one_or_waits_for_the_host(
    kind: type[PreTrainedModel], recipe: str
) -> None:
    operations = small_cost(kind, recipe, 4).operations
    assert not [name for name in operations.keys() - HARMLESS if (LAPACK | WAITING).intersection(name.split("_"))]
    assert operations["bmm"] > 0


def on_meta(fields: Mapping[str, Any]) -> AttributedModel:
    model, recipe = small(GPT2LMHeadModel), Recipe(**fields, rank_by_layer=False)
    model.config._attn_implementation = "eager"
    return attributed_on_meta(model, recipe, select_layers(model))


def attributed_on_meta(model: PreTrainedModel, recipe: Recipe, layers: list[TrackedLayer]) -> AttributedModel:
    projection = fitted_recipe(recipe, layers).projection
    shapes = {layer.name: projection.shape(layer) for layer in layers}
    return AttributedModel(
        CheckpointRecord("meta", "weights", "tokenizer", "gpt2", 0, None, shapes),
        recipe,
        model,
        None,
        # On the host, as they are made.
        [layer_projection(layer, projection) for layer in layers],
        "projection",
        DeviceGroup((META,)),
    )


def meta_bases(attributed: AttributedModel) -> dict[str, KfacBases]:
    def side(d: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(d, d, device=META), torch.empty(d, device=META)

    sides = {layer: [side(d) for d in shape] for layer, shape in attributed.record.layer_shapes.items()}
    return {layer: KfacBases(q_in, q_out, a, b, 0.1) for layer, ((q_in, a), (q_out, b)) in sides.items()}


@pytest.mark.parametrize("fields", [*RECIPES.values(), {"fisher_share": 0.5}, {"curvature": "svd"}], ids=str)
def test_a_batch_is_copied_back_once_and_nothing_but_its_tokens_goes_to_the_device_for_further_shards(
    monkeypatch: pytest.MonkeyPatch, fields: Mapping[str, Any]
) -> None:
    attributed = on_meta(fields)
    bases = meta_bases(attributed) if attributed.recipe.whitens else {}
    copied: list[int] = []

    def zeros(tensor: torch.Tensor) -> torch.Tensor:
        copied.append(tensor.numel())
        # Of each example: its loss, whether it is finite, and its factors.
        return torch.ones(tensor.shape, dtype=tensor.dtype)

    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: tensor if tensor.device.type == "cpu" else zeros(tensor))
    ids = torch.arange(LENGTH).numpy()
    examples = [TokenizedExample(f"e{row}", row, ids, ids) for row in range(8)]

    def shard() -> list[tuple[tuple[int, ...], torch.dtype]]:
        with OperationCounts() as counts, Progress("factors", 8 * LENGTH, "tok") as progress:
            factor_rows(attributed, examples, bases, BatchSettings(tokens=4 * LENGTH), progress)
        return counts.uploads

    first, second = shard(), shard()
    assert len(copied) == 4
    is_projected = fields.get("projection_factor") != 1
    assert any(len(shape) == 2 and dtype == torch.bfloat16 for shape, dtype in first) == is_projected
    # Two batches: ids, mask and labels; where the squares are over a sample, which it is.
    tokens = Counter(second)
    of_batch = [((4, LENGTH), torch.int64), ((4, LENGTH), torch.int64), ((4, LENGTH), torch.bool)] * 2
    sampled = [(shape, dtype) for shape, dtype in second if len(shape) == 1 and dtype == torch.int64]
    assert tokens - Counter(sampled) == Counter(of_batch)
    assert len(sampled) == (2 if "fisher_share" in fields else 0)


def test_a_batch_that_is_not_finite_alone_is_looked_at_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one copy of a batch says which of its examples are finite."""
    batches: list[int] = []
    start = _EncodedFactors.start_batch

    def started(self: _EncodedFactors, n: int) -> Any:
        batches.append(n)
        return start(self, n)

    monkeypatch.setattr(_EncodedFactors, "start_batch", started)

    def unsound_once(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "cpu":
            return tensor
        found = torch.ones(tensor.shape, dtype=tensor.dtype)
        found[0, 4] = len(batches) > 1
        return found

    monkeypatch.setattr(torch.Tensor, "cpu", unsound_once)
    attributed = on_meta({})
    object.__setattr__(attributed, "tokenizer", type("Named", (), {"decode": staticmethod(str)}))
    ids = torch.arange(LENGTH).numpy()
    with Progress("factors", 4 * LENGTH, "tok") as progress:
        examples = [TokenizedExample(f"e{row}", row, ids, ids) for row in range(4)]
        found = factor_rows(attributed, examples, meta_bases(attributed), BatchSettings(), progress)
    assert batches == [4, 3]
    assert [row.example_id for row in found.not_finite] == ["e0"]


# --- The matrices of an adapter ----------------------------------------------------------------------------------------


@cache
def adapter_operations(examples: int, **fields: Any) -> Mapping[str, int]:
    """Of a batch's factors by an adapter's own matrices."""
    from peft import LoraConfig

    model = small(LlamaForCausalLM)
    model.config._attn_implementation = "eager"
    with META:
        model.add_adapter(LoraConfig(r=8, target_modules="all-linear"))
    recipe = Recipe(track="adapter", rank_by_layer=False, **fields)
    layers = tracked_layers(model, recipe)
    assert len(layers) == 2 * 2 * 7
    recipe = fitted_recipe(recipe, layers)
    attributed = attributed_on_meta(model, recipe, layers)
    ids = torch.zeros(examples, LENGTH, dtype=torch.int64, device=META)
    batch = TokenBatch(ids, ids.bool(), ids, is_padded_right=True)
    bases = meta_bases(attributed) if recipe.whitens else {}
    # Once to make what later batches find on the device.
    run_batch(attributed, batch, bases, BatchSettings().gradient_numbers)
    with OperationCounts() as counts:
        run_batch(attributed, batch, bases, BatchSettings().gradient_numbers)
    return counts.cost.operations


@pytest.mark.parametrize("fields", [{}, {"preset": "paper"}], ids=str)
def test_by_an_adapters_matrices_the_operations_do_not_grow_with_the_examples_and_none_goes_one_by_one(
    fields: Mapping[str, Any],
) -> None:
    few, many = (adapter_operations(examples, **fields) for examples in (4, 32))
    assert few == many
    assert not [name for name in few.keys() - HARMLESS if (LAPACK | WAITING).intersection(name.split("_"))]


# --- The cost at the shape of a model of 1.5 billion parameters --------------------------------------------------------


def billions(blocks: int) -> PreTrainedModel:
    """Some of its 24 blocks: the others cost the same again."""
    with META:
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32_000,
                hidden_size=2_048,
                intermediate_size=8_192,
                num_hidden_layers=blocks,
                num_attention_heads=16,
                num_key_value_heads=16,
            )
        ).to(torch.bfloat16)


@cache
def cost(recipe: Recipe, blocks: int = 4) -> FactorCost:
    return factor_cost(billions(blocks), recipe, 16, 512, BatchSettings(gradient_mib=2_048))


def test_the_floor_is_two_products_with_every_weight() -> None:
    """Forward and activation gradients, of every token; what attention multiplies comes on top."""
    weights = sum(p.numel() for name, p in billions(4).named_parameters() if p.ndim == 2 and "embed_tokens" not in name)
    floor = cost(Recipe(preset="paper")).floor
    assert set(floor.flops) <= {"bfloat16", "float32"}
    assert 1.0 < floor.all_flops / (2 * 2 * 16 * 512 * weights) < 1.15


@pytest.mark.parametrize(
    ("fields", "products", "in_fp32", "moved", "share"),
    [
        # Beside the floor's: all products, those in FP32 or TF32 alone, bytes; and the share of its rate that they leave.
        ({}, 1.25, 0.03, 1.45, 0.65),
        ({"preset": "paper"}, 1.25, 0.01, 1.45, 0.70),
        ({"factor_rounds": 3}, 1.25, 0.03, 1.40, 0.65),
        ({"max_width": 1_024, "whitening_rank": 64, "fisher_share": 1 / 64, "factor_rounds": 3}, 1.4, 0.06, 2.0, 0.50),
    ],
    ids=str,
)
def test_factors_cost_little_beside_the_floor(
    fields: Mapping[str, Any], products: float, in_fp32: float, moved: float, share: float
) -> None:
    found = cost(Recipe(**fields))
    wide = sum(count for name, count in found.whole.flops.items() if name in {"float32", "tf32"})
    assert found.whole.all_flops < products * found.floor.all_flops
    assert wide < in_fp32 * found.floor.all_flops
    assert found.whole.bytes < moved * found.floor.bytes
    assert found.share_of_floor(H200) > share


def test_without_projection_no_dense_gradient_is_formed_but_the_samples() -> None:
    recipe = Recipe(projection_factor=1, whitening_rank=64, factor_rounds=3, rank=8)
    whole, sampled = (cost(recipe.changed(fisher_share=share), blocks=1) for share in (1.0, 1 / 16))
    assert sampled.whole.all_flops < 1.8 * sampled.floor.all_flops
    assert whole.whole.all_flops > 4 * whole.floor.all_flops


def test_what_takes_long_is_what_the_device_does_slowly() -> None:
    of_products = OperationCost({"mm": 1}, {"bfloat16": int(790e12)}, 0)
    in_fp32 = OperationCost({"mm": 1}, {"float32": int(790e12)}, 0)
    of_memory = OperationCost({"add": 1}, {}, int(4e12))
    of_starts = OperationCost({"add": 250_000}, {}, 0)
    assert [one.seconds(H200) for one in (of_products, of_memory, of_starts)] == pytest.approx([1.0, 1.0, 1.0])
    assert in_fp32.seconds(H200) > 15
