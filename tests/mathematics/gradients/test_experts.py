"""Mixtures of experts with fused weights: tracked expert by expert, router included, whatever multiplies them."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from lorif_assets.mathematics.gradients.collector import BatchGradients, GradientCollector
from lorif_assets.mathematics.gradients.expert_forms import experts_forward
from lorif_assets.mathematics.gradients.experts import Routing
from lorif_assets.mathematics.gradients.layers import LayerError, TrackedLayer, coverage, select_layers
from lorif_assets.mathematics.gradients.projection import LayerProjection, Projection, layer_projection
from tests.mathematics.gradients.families import autograd_gradients_and_losses, tiny_model
from tests.mathematics.references import padded_batch, relative_error

FAMILIES = (
    "mixtral",
    "qwen3_moe",
    "olmoe",
    "gpt_oss",
    "deepseek_v3",
    "llama4_text",
    "nemotron_h",
    "ernie4_5_moe",
    "longcat_flash",
    "dbrx",
    "jetmoe",
)


def projections(model: nn.Module, factor: int = 2, **patterns: tuple[str, ...]) -> list[LayerProjection]:
    return [layer_projection(layer, Projection(factor=factor, seed=7)) for layer in select_layers(model, **patterns)]


def collect(model: nn.Module, examples, side: str = "right", factor: int = 2) -> BatchGradients:
    with GradientCollector(model, projections(model, factor)) as collector:
        return collector.collect(padded_batch(examples, 14, side))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_experts_and_routers_in_fp64_are_those_of_autograd(family, examples):
    model = tiny_model(family)
    expected, losses = autograd_gradients_and_losses(model, examples, projections(model))
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for side in ("left", "right"):
        found = collect(copy.deepcopy(model).double(), examples, side)
        assert relative_error(found.losses, losses) < 1e-6
        for name, gradient in expected.items():
            # Their norms and routers are in FP32 whatever the model's type.
            assert float((found.gradients[name] - gradient).norm()) < 1e-6 * largest, name


# transformers has one way alone to multiply Llama 4's.
@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "nemotron_h"])
def test_gradients_do_not_depend_on_what_multiplies_the_experts_outside(family, examples):
    model = tiny_model(family)
    expected = collect(model, examples).gradients
    for implementation in ("batched_mm", "grouped_mm"):
        model.set_experts_implementation(implementation)
        found = collect(model, examples).gradients
        assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe", "gpt_oss"])
def test_nearly_all_parameters_of_a_mixture_of_experts_are_tracked(family):
    model = tiny_model(family, vocab_size=16, hidden_size=48, num_experts=16, num_local_experts=16)
    covered = coverage(model, select_layers(model))
    assert covered.tracked / covered.total > 0.97
    assert covered.share_of_blocks > 0.97
    assert not covered.beyond_reach


def test_layers_are_named_as_if_each_expert_were_a_module_and_patterns_choose_among_them():
    model = tiny_model("gpt_oss")
    assert TrackedLayer("model.layers.3.mlp.experts.2.gate_up_proj", 32, 96, 2) in select_layers(model)
    assert select_layers(model, include=["*.1.mlp.experts.[02].down_proj", "*.1.mlp.router"]) == [
        TrackedLayer("model.layers.1.mlp.router", 32, 4),
        TrackedLayer("model.layers.1.mlp.experts.0.down_proj", 48, 32, 0),
        TrackedLayer("model.layers.1.mlp.experts.2.down_proj", 48, 32, 2),
    ]
    assert not any("experts" in layer.name for layer in select_layers(model, exclude=["*experts*"]))


def test_an_expert_that_no_token_of_an_example_or_batch_reaches_has_zero_gradient():
    model = tiny_model("mixtral")
    # All tokens go to experts 0 and 1.
    for layer in model.model.layers:
        layer.mlp.gate.forward = lambda hidden: (
            hidden[:, :4] * 0,
            torch.full((len(hidden), 2), 0.5) + 0 * hidden[:, :2],
            torch.tensor([[0, 1]]).expand(len(hidden), 2),
        )
    found = collect_without_router(model, [([5, 6, 7], [5, 6, 7]), ([8, 9, 5, 6], [8, 9, 5, 6])])
    reached = {name: bool(gradient.any()) for name, gradient in found.items()}
    assert reached == {name: ".experts." not in name or name.split(".")[5] in "01" for name in found}


def collect_without_router(model: nn.Module, examples) -> dict[str, torch.Tensor]:
    chosen = projections(model, exclude=("*.gate",))
    with GradientCollector(model, chosen) as collector:
        found = collector.collect(padded_batch(examples, 4, "right")).gradients
    assert sorted(found) == sorted(p.layer.name for p in chosen)
    return found


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_observer_sees_of_an_expert_the_tokens_that_were_routed_to_it_and_no_padding(side, examples):
    model = tiny_model("mixtral")
    rows: dict[str, int] = {}

    def observer(layer, calls):
        for x, dy in calls:
            assert x.shape[:2] == dy.shape[:2]
            if ".experts." in layer:
                rows[layer] = x.shape[1]

    with GradientCollector(model, projections(model)) as collector:
        collector.observe(padded_batch(examples, 14, side), observer)
    tokens = sum(len(ids) for ids, _ in examples)
    for block in range(4):
        for weight in ("gate_up_proj", "down_proj"):
            of_layer = [n for name, n in rows.items() if name.startswith(f"model.layers.{block}.") and weight in name]
            assert sum(of_layer) == 2 * tokens


def test_rows_are_put_back_example_by_example_without_padding():
    routing, order = Routing.of(torch.tensor([[1, 0], [1, 2], [0, 1], [2, 1]]), 4)
    assert routing.sizes == (2, 4, 2, 0)
    assert routing.tokens.tolist() == [0, 2, 0, 1, 2, 3, 1, 3]
    rows = routing.by_example(torch.tensor([[True, True], [True, False]]))
    values = routing.tokens.double().unsqueeze(1) + 10
    by_expert = rows.by_expert(values)
    assert [part.flatten().tolist() for part in by_expert] == [[10, 12], [10, 11, 12], [11], []]
    laid_out = rows.filled(values)
    of_expert = {
        expert: part.squeeze(2).tolist()
        for block in rows.blocks
        for expert, part in zip(block.experts, rows.of_block(laid_out, block), strict=True)
    }
    assert of_expert == {0: [[10], [12]], 1: [[10, 11], [12, 0]], 2: [[11], [0]]}
    assert rows.rows(laid_out).flatten().tolist() == [10, 12, 10, 11, 12, 0, 11, 0]
    assert sorted(order.tolist()) == list(range(8))


def test_afterwards_the_experts_multiply_as_before():
    model = tiny_model("qwen3_moe")
    with GradientCollector(model, projections(model)) as collector:
        assert all("forward" in vars(layer.mlp.experts) for layer in model.model.layers)
        with pytest.raises(IndexError):
            collector.collect(padded_batch([([5, 100], [5, 6])], 2, "right"))
    assert not any("forward" in vars(module) for module in model.modules())


def test_biases_of_experts_are_added_and_not_tracked():
    model = tiny_model("gpt_oss")
    experts = model.model.layers[0].mlp.experts
    nn.init.normal_(experts.gate_up_proj_bias)
    nn.init.normal_(experts.down_proj_bias)
    hidden, chosen = torch.randn(5, 32), torch.tensor([[0, 1], [2, 3], [3, 0], [1, 2], [0, 3]])
    weights = torch.rand(5, 2)
    found = experts_forward(experts)(hidden, chosen, weights)
    torch.testing.assert_close(found, experts(hidden, chosen, weights))
    assert not any("bias" in layer.name for layer in select_layers(model))


class OddExperts(nn.Module):
    """Experts of a form that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 32, 48))


def test_experts_of_an_unknown_form_are_refused_by_name_unless_the_layers_are_chosen():
    model = tiny_model("mixtral")
    model.model.layers[0].mlp.experts = OddExperts()
    with pytest.raises(LayerError, match=r"mlp\.experts\.weight is a fused expert weight .* OddExperts"):
        select_layers(model)
    assert len(select_layers(model, include=["*self_attn*"])) == 16


def test_what_lies_in_rows_or_is_called_apart_is_named_expert_by_expert_too():
    dbrx, jetmoe = (set(select_layers(tiny_model(family))) for family in ("dbrx", "jetmoe"))
    assert {
        TrackedLayer("transformer.blocks.0.ffn.experts.3.w1", 32, 24, 3),
        TrackedLayer("transformer.blocks.0.ffn.experts.3.w2", 24, 32, 3),
        TrackedLayer("transformer.blocks.0.ffn.router.layer", 32, 4),
    } <= dbrx
    assert {
        TrackedLayer("model.layers.0.mlp.input_linear.1", 32, 96, 1),
        TrackedLayer("model.layers.0.mlp.output_linear.1", 48, 32, 1),
        TrackedLayer("model.layers.0.self_attention.experts.router.layer", 32, 4),
    } <= jetmoe


@pytest.mark.parametrize("side", ["left", "right"])
def test_with_logits_in_chunks_experts_and_head_have_the_gradients_and_tokens_of_all_logits_at_once(side, examples):
    model = tiny_model("mixtral").double()
    chosen = projections(model, include=("*.0.mlp.*", "lm_head"))
    batch = padded_batch(examples, 14, side)
    found, shown = [], []
    for chunk_numbers in (1, 1 << 25):
        calls: dict[str, list[torch.Tensor]] = {}
        with GradientCollector(model, chosen, chunk_numbers) as collector:
            found.append(collector.collect(batch))
            collector.observe(batch, lambda layer, of_layer, calls=calls: calls.update({layer: sum(of_layer, ())}))
        shown.append(calls)
    assert relative_error(found[0].losses, found[1].losses) < 1e-12
    for layer, gradient in found[1].gradients.items():
        assert relative_error(found[0].gradients[layer], gradient) < 1e-9, layer
    assert shown[0].keys() == shown[1].keys() == {projection.layer.name for projection in chosen}
    for layer, sides in shown[1].items():
        for in_chunks, at_once in zip(shown[0][layer], sides, strict=True):
            assert torch.allclose(in_chunks, at_once, rtol=1e-9, atol=1e-12), layer
    # Of the head every token is shown where the batch has it, padding aside.
    inputs, _ = shown[0]["lm_head"]
    assert torch.equal(inputs.any(dim=2), batch.attention_mask)


def test_experts_that_two_blocks_share_have_the_gradients_of_both(examples):
    model = tiny_model("mixtral")
    model.model.layers[1].mlp.experts = model.model.layers[0].mlp.experts
    chosen = projections(model)
    expected, _ = autograd_gradients_and_losses(model, examples, chosen)
    found = collect(copy.deepcopy(model).double(), examples).gradients
    largest = max(float(gradient.norm()) for gradient in expected.values())
    assert sum("experts" in name for name in expected) == 3 * 2 * 4
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) < 1e-6 * largest, name


def test_some_experts_alone_have_the_gradients_that_they_have_among_all(examples):
    model = tiny_model("gpt_oss").double()
    everything = collect(model, examples).gradients
    chosen = projections(model, include=("*.experts.[13].*",))
    with GradientCollector(model, chosen) as collector:
        found = collector.collect(padded_batch(examples, 14, "right")).gradients
    assert len(found) == 4 * 2 * 2
    assert all(relative_error(gradient, everything[name]) < 1e-9 for name, gradient in found.items() if gradient.any())


@pytest.mark.parametrize("max_numbers", [1, 2_000])
def test_in_slices_the_gradients_of_experts_are_the_same_and_come_in_order(max_numbers, examples):
    model = tiny_model("mixtral").double()
    slices: dict[str, list[tuple[slice, torch.Tensor]]] = {}
    with GradientCollector(model, projections(model)) as collector:
        collector.stream(
            padded_batch(examples, 14, "right"),
            lambda layer, rows, found: slices.setdefault(layer, []).append((rows, found)),
            max_numbers,
        )
    for layer, gradient in collect(model, examples).gradients.items():
        assert [row for rows, _ in slices[layer] for row in range(rows.start, rows.stop)] == list(range(len(gradient)))
        torch.testing.assert_close(torch.cat([found for _, found in slices[layer]]), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bare_signs_as_an_accelerator_has_them_project_experts_as_the_scaled_ones_do(dtype, examples):
    model = tiny_model("mixtral").to(dtype)
    scaled = projections(model)
    bare = [replace(p, p_in=signs(p.p_in), p_out=signs(p.p_out)) for p in scaled]
    found = []
    for chosen in (scaled, bare):
        with GradientCollector(model, chosen) as collector:
            found.append(collector.collect(padded_batch(examples, 14, "right")).gradients)
    largest = max(float(gradient.norm()) for gradient in found[0].values())
    for name, gradient in found[0].items():
        assert gradient.dtype == found[1][name].dtype == torch.float32
        assert float((found[1][name] - gradient).norm()) < 1e-4 * largest, name


def signs(p: torch.Tensor | None) -> torch.Tensor | None:
    return None if p is None else p.sign().to(torch.bfloat16)
