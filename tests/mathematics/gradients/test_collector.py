"""Projected per-example gradients: those of autograd, whatever the batch, and a model left as it was found."""

import copy
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorif_assets.mathematics.gradients.collector import (
    BatchGradients,
    GradientCollector,
    TokenBatch,
)
from lorif_assets.mathematics.gradients.contraction import cheapest_order
from lorif_assets.mathematics.gradients.layers import LayerError, TrackedLayer, select_layers
from lorif_assets.mathematics.gradients.projection import LayerProjection, Projection, layer_projection
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL, next_tokens, summed_cross_entropies
from tests.mathematics.references import (
    autograd_gradients,
    dense_projection,
    padded_batch,
    relative_error,
    token_loss,
)

VOCABULARY, WIDTH = 64, 6


class ToyModel(nn.Module):
    """An embedding, numbered linear layers that `mix` combines, and a head."""

    def __init__(self, mix: Callable[["ToyModel", Tensor], Tensor], layer: Callable[[], nn.Module] | None = None):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([(layer or (lambda: nn.Linear(WIDTH, WIDTH)))() for _ in range(2)])
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.mix = mix

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False):
        return SimpleNamespace(logits=self.head(self.mix(self, self.embedding(input_ids))))


def in_sequence(model: ToyModel, x: Tensor) -> Tensor:
    return model.blocks[1](torch.tanh(model.blocks[0](x)))


def first_layer_twice(model: ToyModel, x: Tensor) -> Tensor:
    return model.blocks[1](model.blocks[0](torch.tanh(model.blocks[0](x))))


def flattened(model: ToyModel, x: Tensor) -> Tensor:
    return in_sequence(model, x.flatten(0, 1)).unflatten(0, x.shape[:2])


def with_a_head_of_one(model: ToyModel, x: Tensor) -> Tensor:
    return in_sequence(model, x.unsqueeze(1)).squeeze(1)


def second_layer_uncalled(model: ToyModel, x: Tensor) -> Tensor:
    return model.blocks[0](x)


def second_layer_without_gradient(model: ToyModel, x: Tensor) -> Tensor:
    with torch.no_grad():
        constant = model.blocks[1](x)
    return model.blocks[0](x) + constant


def second_layer_routed(model: ToyModel, x: Tensor) -> Tensor:
    x = model.blocks[0](x)
    chosen = x[..., 0] > x[..., 0].median()
    return x.masked_scatter(chosen.unsqueeze(-1), model.blocks[1](x[chosen]))


def second_layer_in_groups(model: ToyModel, x: Tensor) -> Tensor:
    """As many groups as examples, but a group is no example and has another number of rows."""
    x = model.blocks[0](x)
    groups = x[:, :-1].flatten(0, 1).unflatten(0, (x.shape[0], -1))
    return torch.cat([model.blocks[1](groups).flatten(0, 1).unflatten(0, (x.shape[0], -1)), x[:, -1:]], dim=1)


def second_layer_with_tokens_first(model: ToyModel, x: Tensor) -> Tensor:
    return model.blocks[1](model.blocks[0](x).transpose(0, 1)).transpose(0, 1)


def projections(model: nn.Module, factor: int) -> list[LayerProjection]:
    return [layer_projection(layer, Projection(factor=factor, seed=7)) for layer in select_layers(model)]


def collect(model: nn.Module, factor: int, batch: TokenBatch) -> BatchGradients:
    with GradientCollector(model, projections(model, factor)) as collector:
        return collector.collect(batch)


def in_double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double()


# --- The gradient is autograd's ------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("side", ["left", "right"])
# Llama computes its norms in FP32 whatever the model's type.
@pytest.mark.parametrize(
    ("family", "attention", "tolerance"), [("gpt2", "sdpa", 1e-12), ("gpt2", "eager", 1e-12), ("llama", "sdpa", 1e-6)]
)
def test_gradients_in_fp64_are_those_of_autograd_example_by_example(
    family, attention, tolerance, side, factor, examples, request
):
    """Unequal lengths, masked prompts, padding on either side, Conv1D and nn.Linear, grouped-query attention."""
    model = in_double(request.getfixturevalue(family))
    model.set_attn_implementation(attention)
    found = collect(model, factor, padded_batch(examples, 14, side)).gradients
    expected = autograd_gradients(model, examples, projections(model, factor))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float64
        for i in range(len(examples)):
            assert relative_error(found[name][i], gradient[i]) < tolerance, (name, i)


@pytest.mark.parametrize(
    "mix", [in_sequence, first_layer_twice, flattened, with_a_head_of_one], ids=lambda mix: mix.__name__
)
@pytest.mark.parametrize("layer", [None, lambda: Conv1D(WIDTH, WIDTH)], ids=["Linear", "Conv1D"])
def test_layers_in_sequence_called_twice_or_over_reshaped_tokens_have_autograds_gradients(mix, layer, examples):
    model = in_double(ToyModel(mix, layer))
    found = collect(model, 2, padded_batch(examples, 12, "right")).gradients
    for name, gradient in autograd_gradients(model, examples, projections(model, 2)).items():
        assert relative_error(found[name], gradient) < 1e-12


def test_a_module_shared_by_two_blocks_is_one_layer_with_the_sum_of_both_gradients(gpt2, examples):
    model = in_double(gpt2)
    model.transformer.h[1].mlp = model.transformer.h[0].mlp
    found = collect(model, 2, padded_batch(examples, 12, "left")).gradients
    assert len(found) == 6
    for name, gradient in autograd_gradients(model, examples, projections(model, 2)).items():
        assert relative_error(found[name], gradient) < 1e-12


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_batch_size_batch_order_and_padding_do_not_change_gradients_or_losses(data, gpt2, examples):
    model = in_double(gpt2)
    alone = [collect(model, 3, padded_batch([example], len(example[0]), "right")) for example in examples]
    order = data.draw(st.permutations(range(len(examples))))
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        width = max(len(examples[i][0]) for i in batch) + data.draw(st.integers(0, 5))
        side = data.draw(st.sampled_from(["left", "right"]))
        together = collect(model, 3, padded_batch([examples[i] for i in batch], width, side, filler=width))
        for row, i in enumerate(batch):
            torch.testing.assert_close(together.losses[row], alone[i].losses[0], rtol=1e-12, atol=1e-12)
            for name, gradient in together.gradients.items():
                assert relative_error(gradient[row], alone[i].gradients[name][0]) < 1e-12


# Over a whole layer up to 3e-6 and 0.11 were seen: BF16 keeps 8 bits of every activation, and attention is sharp here.
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.2)])
@pytest.mark.parametrize(
    ("family", "attention"),
    [("gpt2", "sdpa"), ("gpt2", "eager"), ("llama", "sdpa"), ("llama", "eager"), ("bloom", "eager")],
)
def test_a_model_in_lower_precision_gives_fp32_gradients_close_to_the_fp64_ones(
    family, attention, dtype, bound, examples, request
):
    # From the same weights, those that the lower precision holds.
    model = copy.deepcopy(request.getfixturevalue(family)).to(dtype)
    model.set_attn_implementation(attention)
    found = collect(model, 2, padded_batch(examples, 12, "left"))
    expected = autograd_gradients(model, examples, projections(model, 2))
    assert found.losses.dtype == torch.float32
    for name, gradient in expected.items():
        assert found.gradients[name].dtype == torch.float32
        assert relative_error(found.gradients[name], gradient) < bound, name


def test_products_of_a_bf16_models_activations_are_formed_in_fp32(examples):
    """Only the model rounds to BF16: given its inputs and output gradients, G is exact to FP32."""
    model = ToyModel(in_sequence).bfloat16()
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["x"] = inputs[0].detach().double()
        output.register_hook(lambda dy: seen.update(dy=dy.double()))

    model.blocks[1].register_forward_hook(keep)
    found = collect(model, 2, padded_batch(examples, 12, "right")).gradients["blocks.1"]
    p_in, p_out = dense_projection(projections(model, 2)[1])
    expected = torch.stack([(x @ p_in).T @ (dy @ p_out) for x, dy in zip(seen["x"], seen["dy"], strict=True)])
    assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize("factor", [1, 2])
def test_a_bf16_models_activations_are_shown_in_fp32_projected_or_not(factor, examples):
    model = ToyModel(in_sequence).bfloat16()
    shown: list[tuple[torch.dtype, torch.dtype]] = []
    with GradientCollector(model, projections(model, factor)) as collector:
        collector.observe(
            padded_batch(examples, 12, "right"),
            lambda _layer, calls: shown.extend((x.dtype, dy.dtype) for x, dy in calls),
        )
    assert set(shown) == {(torch.float32, torch.float32)}


def test_doubling_the_tokens_that_bear_loss_is_summed_not_averaged(gpt2, examples):
    model, (ids, _) = in_double(gpt2), examples[2]
    first, second = [*ids[:6], *[IGNORED_LABEL] * 6], [*[IGNORED_LABEL] * 6, *ids[6:]]
    both, one, other = collect(
        model, 1, padded_batch([(ids, ids), (ids, first), (ids, second)], 12, "right")
    ).gradients["transformer.h.0.mlp.c_fc"]
    assert relative_error(one + other, both) < 1e-12


@pytest.mark.parametrize(
    "example", [([5], [5]), ([5, 6, 7], [IGNORED_LABEL] * 3), ([5, 6, 7], [5, IGNORED_LABEL, IGNORED_LABEL])]
)
def test_an_example_without_target_tokens_has_zero_loss_and_gradient(gpt2, examples, example):
    for batch in ([example], [example, examples[0]]):
        found = collect(gpt2, 2, padded_batch(batch, len(batch[-1][0]), "right"))
        assert float(found.losses[0]) == 0.0
        assert all(not gradient[0].any() for gradient in found.gradients.values())


# --- Losses ------------------------------------------------------------------------------------------------------


def test_losses_are_sums_over_target_tokens_of_their_negative_log_probability(gpt2, examples):
    model = in_double(gpt2)
    found = collect(model, 2, padded_batch(examples, 13, "left")).losses
    model.eval()
    expected = [token_loss(model(input_ids=torch.tensor([ids])).logits[0], labels) for ids, labels in examples]
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=0)


def test_losses_of_a_half_precision_model_are_computed_in_fp32():
    logits = torch.randn(2, 5, VOCABULARY, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.tensor([[1, 2, 3, 4, 5], [-100, -100, 9, -100, 7]])
    found = summed_cross_entropies(logits, next_tokens(labels))
    assert found.dtype == torch.float32
    assert torch.equal(found, summed_cross_entropies(logits.float(), next_tokens(labels)))


# --- The model is left as it was found ------------------------------------------------------------------------------


def n_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def flags(model: nn.Module) -> tuple[list[bool], list[bool]]:
    return (
        [parameter.requires_grad for parameter in model.parameters()],
        [module.training for module in model.modules()],
    )


@pytest.fixture
def half_frozen(gpt2) -> nn.Module:
    """In training mode but for one block, and with one frozen weight: flags that are not all alike."""
    model = copy.deepcopy(gpt2).train().requires_grad_(True)
    model.transformer.h[0].eval()
    model.transformer.wte.weight.requires_grad_(False)
    return model


def test_inside_the_model_is_frozen_and_in_eval_mode(half_frozen, examples):
    with GradientCollector(half_frozen, projections(half_frozen, 2)) as collector:
        collector.collect(padded_batch(examples, 12, "right"))
        assert not any(any(flag) for flag in flags(half_frozen))
        assert n_hooks(half_frozen) == 1 + 8
        assert all(parameter.grad is None for parameter in half_frozen.parameters())


@pytest.mark.parametrize("error", [None, RuntimeError("from the block")])
def test_leaving_removes_hooks_and_restores_every_flag_also_after_an_exception(half_frozen, examples, error):
    before = flags(half_frozen)

    def use_collector() -> None:
        with GradientCollector(half_frozen, projections(half_frozen, 2)) as collector:
            collector.collect(padded_batch(examples, 12, "right"))
            if error:
                raise error

    if error:
        with pytest.raises(RuntimeError, match="from the block"):
            use_collector()
    else:
        use_collector()
    assert flags(half_frozen) == before
    assert n_hooks(half_frozen) == 0


def test_a_batch_that_fails_leaves_nothing_behind_for_the_next(half_frozen, examples):
    expected = collect(half_frozen, 2, padded_batch(examples, 12, "right")).gradients
    before = flags(half_frozen)
    with GradientCollector(half_frozen, projections(half_frozen, 2)) as collector:
        with pytest.raises(IndexError):
            collector.collect(padded_batch([([5, VOCABULARY + 1], [5, 6])], 2, "right"))
        found = collector.collect(padded_batch(examples, 12, "right")).gradients
    assert flags(half_frozen) == before
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_a_model_that_cannot_be_entered_is_left_as_it_was():
    model = ToyModel(in_sequence)
    before = flags(model)
    model.get_input_embeddings = None
    with pytest.raises(TypeError), GradientCollector(model, projections(model, 1)):
        pass
    assert flags(model) == before
    assert n_hooks(model) == 0


def test_a_model_that_trains_gives_the_gradients_of_eval_mode(half_frozen, examples):
    batch = padded_batch(examples, 12, "right")
    for name, gradient in collect(copy.deepcopy(half_frozen).eval(), 2, batch).gradients.items():
        assert torch.equal(collect(half_frozen, 2, batch).gradients[name], gradient)


def test_a_caller_that_disabled_gradients_still_gets_them(gpt2, examples):
    batch = padded_batch(examples[:2], 9, "right")
    with torch.no_grad():
        found = collect(gpt2, 2, batch)
    assert float(found.gradients["transformer.h.0.attn.c_attn"].abs().sum()) > 0
    assert not any(gradient.requires_grad for gradient in found.gradients.values())


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", [second_layer_uncalled, second_layer_without_gradient], ids=lambda mix: mix.__name__)
def test_a_layer_that_gets_no_gradient_is_refused_by_name(mix, examples):
    with pytest.raises(LayerError, match=r"'blocks\.1' got no gradient \(1 such\).*`recipe.exclude_layers`"):
        collect(ToyModel(mix), 2, padded_batch(examples, 12, "right"))


@pytest.mark.parametrize(
    "mix",
    [second_layer_routed, second_layer_in_groups, second_layer_with_tokens_first],
    ids=lambda mix: mix.__name__,
)
def test_a_layer_whose_rows_are_not_the_batchs_tokens_is_refused_by_name(mix, examples):
    with pytest.raises(LayerError, match=r"'blocks\.1' got a tensor of shape .*batch of 6 examples of 12 tokens"):
        collect(ToyModel(mix), 2, padded_batch(examples, 12, "right"))


def test_a_projection_of_a_layer_that_the_model_lacks_is_refused(gpt2, llama):
    with pytest.raises(LayerError, match=r"no layer 'model\.layers\.0\.self_attn\.q_proj'"):
        GradientCollector(gpt2, projections(llama, 2))


@pytest.mark.parametrize("factor", [1, 2])
def test_a_projection_made_for_other_widths_is_refused(gpt2, factor):
    layer = TrackedLayer("transformer.h.0.attn.c_attn", 12, 40)
    with pytest.raises(LayerError, match=r"c_attn' was expected.*\(12, 40\), but is a Conv1D with \(12, 36\)"):
        GradientCollector(gpt2, [layer_projection(layer, Projection(factor=factor, seed=0))])


def test_a_projection_of_a_module_that_is_not_linear_is_refused(gpt2):
    with pytest.raises(LayerError, match="but is a GPT2Attention with none"):
        GradientCollector(
            gpt2, [layer_projection(TrackedLayer("transformer.h.0.attn", 12, 36), Projection(factor=2, seed=0))]
        )


def test_scaling_a_projection_scales_the_gradient(gpt2, examples):
    batch = padded_batch(examples, 12, "right")
    plain = projections(gpt2, 2)
    scaled = [replace(projection, p_in=4 * projection.p_in, p_out=-projection.p_out) for projection in plain]
    with GradientCollector(gpt2, plain) as collector:
        expected = collector.collect(batch).gradients
    with GradientCollector(gpt2, scaled) as collector:
        found = collector.collect(batch).gradients
    assert all(torch.equal(found[name], -4 * gradient) for name, gradient in expected.items())


def test_a_batch_moves_to_a_device_whole(examples):
    moved = padded_batch(examples, 12, "right").to(torch.device("meta"))
    assert {moved.input_ids.device.type, moved.attention_mask.device.type, moved.labels.device.type} == {"meta"}


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_model_that_writes_into_a_layers_input_after_the_call_changes_no_gradient(factor):
    def gradient(*, overwrites: bool) -> Tensor:
        def mix(model: ToyModel, x: Tensor) -> Tensor:
            hidden = x.repeat(1, 1, 4)
            y = model.blocks[1](hidden) + x
            if overwrites:
                hidden.data.fill_(7.0)
            return y

        model = ToyModel(mix)
        torch.manual_seed(1)
        model.blocks[1] = nn.Linear(4 * WIDTH, WIDTH)
        (wide,) = [projection for projection in projections(model, factor) if projection.layer.name == "blocks.1"]
        assert factor != 3 or not cheapest_order(wide, 20).inputs
        ids = torch.arange(40).view(2, 20)
        with GradientCollector(model, [wide]) as collector:
            return collector.collect(TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids)).gradients["blocks.1"]

    assert torch.equal(gradient(overwrites=True), gradient(overwrites=False))


@pytest.mark.parametrize("factor", [1, 3])
def test_an_accelerators_way_gives_the_same_gradients(gpt2, examples, factor, monkeypatch):
    batch, made = padded_batch(examples, 12, "right"), projections(gpt2, factor)
    with GradientCollector(gpt2, made) as collector:
        expected = collector.collect(batch)
    monkeypatch.setattr("lorif_assets.mathematics.accelerators.is_accelerator", lambda device: True)
    with GradientCollector(gpt2, made) as collector:
        found = collector.collect(batch)
    for name, gradient in expected.gradients.items():
        assert relative_error(found.gradients[name], gradient) < 1e-5


def test_a_collector_can_be_entered_again_and_leaves_no_trace(gpt2, examples):
    batch = padded_batch(examples, 12, "right")
    collector = GradientCollector(gpt2, projections(gpt2, 2), tf32=True)
    before = torch.backends.cuda.matmul.fp32_precision
    results = []
    for _ in range(2):
        with collector:
            assert torch.backends.cuda.matmul.fp32_precision == "tf32"
            results.append(collector.collect(batch))
        assert torch.backends.cuda.matmul.fp32_precision == before
    assert all(torch.equal(results[0].gradients[name], found) for name, found in results[1].gradients.items())
