"""The products are torch's own to rounding, whichever library computes them, and gradients reach what is not frozen."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lorif_assets.mathematics import matrix_products
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.matrix_products import (
    add_product,
    product,
    products_of_frozen_layers,
    sign_product,
    tf32_products,
)

needs_onednn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="torch was built without oneDNN",
)


@pytest.fixture(params=[False, pytest.param(True, marks=needs_onednn)], ids=["torch", "onednn"])
def library(request, monkeypatch):
    """Both libraries compute, whatever the processor and however small the matrices."""
    monkeypatch.setattr(matrix_products, "_onednn_is_faster", lambda: request.param)
    monkeypatch.setattr(matrix_products, "_REPAID", 0)
    return request.param


def calls_of_onednn(monkeypatch):
    """Count, from now on, what is given to oneDNN."""
    calls = []
    linear = matrix_products.onednn_linear
    monkeypatch.setattr(matrix_products, "onednn_linear", lambda *args: calls.append(args) or linear(*args))
    return calls


def matrices(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3), (0,)])
def test_a_product_is_that_of_fp64(library, batch):
    a, b = matrices((*batch, 17), (17, 4))
    torch.testing.assert_close(product(a, b).double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


def test_strides_do_not_matter(library):
    a, b = matrices((17, 5), (4, 17))
    torch.testing.assert_close(product(a.mT, b.mT).double(), a.mT.double() @ b.mT.double(), rtol=1e-5, atol=1e-5)
    wide, stacked = matrices((6, 40), (3, 6, 17))
    torch.testing.assert_close(product(stacked.mT, wide[:, ::2]), stacked.mT @ wide[:, ::2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_batched_product_is_that_of_each_pair(library, n):
    a, b = matrices((n, 17, 5), (n, 17, 4))
    found = product(a.mT, b)
    assert found.shape == (n, 5, 4)
    torch.testing.assert_close(found.double(), a.mT.double() @ b.double(), rtol=1e-5, atol=1e-5)


def test_a_product_is_added_in_place_piece_by_piece(library, monkeypatch):
    monkeypatch.setattr(matrix_products, "_ROWS_ADDED", 4)
    total, a, b = matrices((9, 3), (9, 6), (6, 3))
    expected = total.double() + a.double() @ b.double()
    add_product(total, a, b)
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-5)


def test_fp64_stays_fp64(library):
    a, b = matrices((5, 17), (17, 4), dtype=torch.float64)
    assert torch.equal(product(a, b), a @ b)


class TwoLinears(nn.Module):
    """A layer with its weight as `nn.Linear` has it, and one the other way round, as GPT-2 has it."""

    def __init__(self, bias):
        super().__init__()
        self.first = nn.Linear(6, 5, bias=bias)
        self.second = nn.Parameter(torch.randn(5, 4))
        self.second_bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return torch.addmm(self.second_bias, hidden.view(-1, 5), self.second).view(*x.shape[:-1], 4)


@pytest.mark.parametrize("bias", [True, False])
def test_frozen_layers_give_the_same_outputs_and_input_gradients(library, monkeypatch, bias):
    torch.manual_seed(0)
    model = TwoLinears(bias).requires_grad_(requires_grad=False)
    (x,) = matrices((2, 3, 6))
    found, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    reference = model(expected)
    reference.square().sum().backward()
    calls = calls_of_onednn(monkeypatch)
    with products_of_frozen_layers(model):
        output = model(found)
    output.square().sum().backward()
    assert len(calls) == (4 if library else 0)
    torch.testing.assert_close(output, reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)


def test_gradients_of_a_model_are_collected_by_the_faster_library(library, monkeypatch):
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=11,
        )
    )
    projections = [layer_projection(layer, Projection(factor=2, seed=0)) for layer in select_layers(model)]
    tokens = torch.randint(0, 11, (2, 5))
    batch = TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), tokens)
    calls = calls_of_onednn(monkeypatch)
    with GradientCollector(model, projections) as collector:
        found = collector.collect(batch)
    # Both passes of the seven layers and of the LM head at least, and their projections.
    assert len(calls) >= 2 * 8 + 2 * 7 if library else not calls
    with GradientCollector(model.double(), projections) as collector:
        exact = collector.collect(batch)
    for layer, gradients in found.gradients.items():
        torch.testing.assert_close(gradients.double(), exact.gradients[layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "bias",
    [torch.randn(4, 3)[:, 1], torch.randn(()).expand(4), torch.randn(1), torch.randn(()), torch.randn(3, 4)],
    ids=["column", "expanded", "one", "scalar", "matrix"],
)
def test_biases_that_do_not_lie_in_a_row_are_added_all_the_same(library, bias):
    x, weight = matrices((3, 6), (6, 4))
    with products_of_frozen_layers(nn.Identity()):
        found = torch.addmm(bias, x, weight)
    torch.testing.assert_close(found, bias + x @ weight, rtol=1e-5, atol=1e-5)


def test_operands_that_need_a_gradient_get_it(library):
    a, b = (matrix.requires_grad_() for matrix in matrices((5, 17), (17, 4)))
    product(a, b).sum().backward()
    torch.testing.assert_close(a.grad, b.detach().sum(1).expand(5, 17))
    product(a.detach().expand(2, 5, 17), b.expand(2, 17, 4)).sum().backward()


def test_autocast_keeps_its_type(library):
    linear = nn.Linear(6, 4).requires_grad_(requires_grad=False)
    with torch.autocast("cpu", torch.bfloat16), products_of_frozen_layers(linear):
        assert linear(torch.randn(3, 6)).dtype == torch.bfloat16


def test_layers_that_are_not_frozen_get_their_gradients(library):
    torch.manual_seed(0)
    model = TwoLinears(bias=True)
    (x,) = matrices((3, 6))
    model(x).sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    with products_of_frozen_layers(model):
        model(x).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_a_model_that_is_not_on_the_cpu_alone_is_left_as_it_is(library, monkeypatch):
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3, device="meta")).requires_grad_(requires_grad=False)
    calls = calls_of_onednn(monkeypatch)
    with products_of_frozen_layers(model) as mode:
        assert mode is None
        model[0](torch.randn(5, 6))
    assert not calls
    with products_of_frozen_layers(model[0]):
        model[0](torch.randn(5, 6))
    assert len(calls) == (1 if library else 0)


@needs_onednn
def test_only_large_products_of_an_amd_processor_are_given_to_onednn(monkeypatch):
    calls = calls_of_onednn(monkeypatch)
    large, small = matrices((256, 64), (64, 64))
    for name, expected in (("AMD EPYC", 1), ("Intel(R) Xeon(R)", 0)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {"cpu_name": name})
        matrix_products._onednn_is_faster.cache_clear()
        calls.clear()
        product(large, small)
        product(small, small)
        assert len(calls) == expected
    matrix_products._onednn_is_faster.cache_clear()


SIGNS = torch.randn(96, 12, generator=torch.Generator().manual_seed(5)).sign().to(torch.bfloat16)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 1e-6), (torch.float16, 1e-6), (torch.float32, 1e-6)])
def test_products_with_signs_lose_no_digit_of_the_other_factor(dtype, digits):
    x = (torch.randn(3, 7, 96, generator=torch.Generator().manual_seed(6)) * 10).to(dtype)
    expected = x.double() @ SIGNS.double()
    found = sign_product(x, SIGNS)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < digits * float(x.double().abs().sum(2).max())


def test_where_tf32_is_allowed_signs_still_meet_more_digits_than_it_has():
    before = torch.backends.cuda.matmul.fp32_precision
    x = torch.randn(40, 96, generator=torch.Generator().manual_seed(6))
    expected = x.double() @ SIGNS.double()
    with tf32_products(True):
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        found = sign_product(x, SIGNS)
    assert torch.backends.cuda.matmul.fp32_precision == before
    error = float((found - expected).norm() / expected.norm())
    assert 1e-7 < error < 2**-14
    with tf32_products(False):
        assert torch.backends.cuda.matmul.fp32_precision == before
