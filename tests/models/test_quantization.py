"""Quantised checkpoints: their gradients are those of the dequantised model, and what cannot run is refused early."""

import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lorif_assets.errors import CheckpointError
from lorif_assets.mathematics.gradients.collector import BatchGradients, GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.models.checkpoint_files import CheckpointFiles
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.quantization import quantization, refuse_unsupported_quantization, stays_quantised

CPU = DeviceGroup.of("cpu")
TORCHAO = {
    "quant_method": "torchao",
    "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}},
}


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def gradients_of(model: PreTrainedModel) -> BatchGradients:
    ids = torch.randint(0, 64, (3, 12), generator=torch.Generator().manual_seed(1))
    projections = [layer_projection(layer, Projection(factor=2, seed=0)) for layer in select_layers(model)]
    with GradientCollector(model, projections) as collector:
        return collector.collect(TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids))


def assert_same(found: BatchGradients, expected: BatchGradients) -> None:
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-5, atol=0)
    assert found.gradients.keys() == expected.gradients.keys()
    for layer, gradient in expected.gradients.items():
        assert (found.gradients[layer] - gradient).norm() < 1e-5 * gradient.norm(), layer


class Int8Linear(nn.Linear):
    """As libraries quantise: whole numbers in place of the weight, which have no gradient, and a scale for each row."""

    @classmethod
    def of(cls, linear: nn.Linear) -> "Int8Linear":
        made = cls(linear.in_features, linear.out_features, bias=False)
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        made.register_buffer("scale", scale)
        made.weight = nn.Parameter((linear.weight.detach() / scale).round().to(torch.int8), requires_grad=False)
        return made

    def dequantized(self) -> Tensor:
        return self.weight.float() * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.dequantized())


def test_gradients_through_quantised_layers_are_those_of_the_dequantised_model() -> None:
    quantised = tiny_model()
    dequantised = copy.deepcopy(quantised)
    for layer in select_layers(quantised):
        parent, _, name = layer.name.rpartition(".")
        made = Int8Linear.of(quantised.get_submodule(layer.name))
        setattr(quantised.get_submodule(parent), name, made)
        dequantised.get_submodule(layer.name).weight.data = made.dequantized()
    assert_same(gradients_of(quantised), gradients_of(dequantised))


def test_a_checkpoint_that_torchao_quantised_has_the_gradients_of_the_dequantised_model(tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    from transformers import AutoModelForCausalLM, TorchAoConfig

    tiny_model().save_pretrained(tmp_path / "whole")
    config = TorchAoConfig(torchao.Int8WeightOnlyConfig())
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", quantization_config=config, dtype="float32")
    made.save_pretrained(tmp_path / "int8")
    files = CheckpointFiles("int8", tmp_path / "int8", None)
    loaded = Checkpoints(path=str(tmp_path)).load_model(files, "float32", CPU)
    dequantised = tiny_model()
    whole = {name: w.dequantize() if hasattr(w, "qdata") else w for name, w in loaded.state_dict().items()}
    assert any(hasattr(weight, "qdata") for weight in loaded.state_dict().values())
    dequantised.load_state_dict(whole)
    assert_same(gradients_of(loaded), gradients_of(dequantised))


@pytest.fixture
def quantised_by_torchao(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a library that is not there."""
    folder = tmp_path / "step-1"
    tiny_model().save_pretrained(folder)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": TORCHAO}))
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setattr("transformers.quantizers.quantizer_torchao.is_torchao_available", lambda: False)
    return folder


def test_weights_whose_library_is_missing_are_refused_before_anything_is_loaded(quantised_by_torchao: Path) -> None:
    assert quantization(quantised_by_torchao) == TORCHAO
    checkpoints = Checkpoints(path=str(quantised_by_torchao.parent))
    files = checkpoints.find()[0]
    for read in (lambda: checkpoints.skeleton(files), lambda: checkpoints.load_model(files, "float32", CPU)):
        with pytest.raises(CheckpointError, match=r"quantised by torchao, which cannot run here: .*torchao"):
            read()


@pytest.mark.parametrize(
    ("library", "config"),
    [
        ("bitsandbytes", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
        ("bitsandbytes", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("gptqmodel", {"quant_method": "gptq", "bits": 4, "group_size": 128}),
        ("gptqmodel", {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}),
    ],
)
def test_other_methods_are_refused_without_their_library(tmp_path: Path, library: str, config: dict[str, Any]) -> None:
    if importlib.util.find_spec(library):
        pytest.skip(f"{library} is installed")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    with pytest.raises(CheckpointError, match=f"quantised by {config['quant_method']}, which cannot run here"):
        refuse_unsupported_quantization(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="some GPUs have FP8")
def test_weights_that_are_dequantised_as_they_are_loaded_are_not_quantised_in_memory(tmp_path: Path) -> None:
    config = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    assert quantization(tmp_path) is not None
    assert not stays_quantised(tmp_path, CPU)


def test_a_method_that_nobody_knows_is_refused_by_its_name(quantised_by_torchao: Path) -> None:
    config = quantised_by_torchao / "config.json"
    unknown = {**json.loads(config.read_text()), "quantization_config": {"quant_method": "roman-numerals"}}
    config.write_text(json.dumps(unknown))
    with pytest.raises(CheckpointError, match="quantised by roman-numerals, which cannot run here"):
        refuse_unsupported_quantization(quantised_by_torchao, CPU)


def test_other_checkpoints_are_not_quantised(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    assert quantization(tmp_path) is None
    refuse_unsupported_quantization(tmp_path, CPU)
    (tmp_path / "config.json").write_text("{")
    assert quantization(tmp_path) is None
