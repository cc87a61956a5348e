"""Quantised checkpoints: their gradients are those of the dequantised model, and what cannot run is refused early."""

import copy
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lorif_assets.errors import CheckpointError
from lorif_assets.mathematics.gradients.collector import BatchGradients, GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.quantised_weights import quantization
from lorif_assets.models.loading.quantization import refuse_unsupported_quantization, stays_quantised

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


# --- Libraries -------------------------------------------------------------------------------------------------------

_MOST_OF_ROUNDING = 0.1
"""Of gradients, where a library rounds the inputs of a layer too."""


def wide_model() -> LlamaForCausalLM:
    """A model of real widths, for which libraries have other kernels than for tiny ones."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).eval()


def load_quantised(root: Path, config: Any) -> PreTrainedModel:
    """A model that a library quantised, saved and loaded as a checkpoint."""
    from transformers import AutoModelForCausalLM

    wide_model().save_pretrained(root / "whole")
    AutoModelForCausalLM.from_pretrained(root / "whole", quantization_config=config, dtype="float32").save_pretrained(
        root / "packed"
    )
    return load_packed(root)


def load_packed(root: Path) -> PreTrainedModel:
    files = CheckpointFiles("packed", root / "packed", None)
    return Checkpoints(path=str(root)).load_model(files, "float32", CPU)


def with_weights(weights: dict[str, Tensor]) -> LlamaForCausalLM:
    dense = wide_model()
    dense.load_state_dict({**dense.state_dict(), **{name: weight.float() for name, weight in weights.items()}})
    return dense


def assert_an_adapter_is_added_to(root: Path, dense: LlamaForCausalLM) -> None:
    """An adapter that was trained beside the packed weights is merged into what they stand for."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(dense), config)
    adapted.peft_config["default"].base_model_name_or_path = str(root / "packed")
    adapted.save_pretrained(root / "adapter")
    checkpoints = Checkpoints(path=str(root / "adapter"))
    found = checkpoints.load_model(CheckpointFiles("adapter", root / "adapter", None), "float32", CPU).state_dict()
    expected = adapted.merge_and_unload().state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_of_bitsandbytes_have_the_gradients_of_the_dequantised_model(tmp_path: Path, kind: str) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    loaded = load_quantised(
        tmp_path,
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=kind,
            bnb_4bit_compute_dtype=torch.float32,
            bnb_4bit_use_double_quant=kind == "nf4",
        ),
    )
    dense = with_weights(
        {
            f"{name}.weight": bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            for name, module in loaded.named_modules()
            if isinstance(module, bitsandbytes.nn.Linear4bit)
        }
    )
    with torch.no_grad():
        # After a pass without gradients, bitsandbytes would go on with weights that let none through.
        loaded(torch.arange(6).unsqueeze(0))
    assert_same(gradients_of(loaded), gradients_of(dense))
    assert stays_quantised(tmp_path / "packed", CPU)
    assert_an_adapter_is_added_to(tmp_path, dense)


def test_eight_bits_of_bitsandbytes_have_them_but_for_the_rounding_of_inputs(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    loaded = load_quantised(tmp_path, BitsAndBytesConfig(load_in_8bit=True))
    dense = with_weights(
        {
            f"{name}.weight": module.weight.data.float() * module.weight.SCB.view(-1, 1) / 127
            for name, module in loaded.named_modules()
            if isinstance(module, bitsandbytes.nn.Linear8bitLt)
        }
    )
    found, expected = gradients_of(loaded).gradients, gradients_of(dense).gradients
    for layer, gradient in expected.items():
        assert (found[layer] - gradient).norm() < _MOST_OF_ROUNDING * gradient.norm(), layer
    assert_an_adapter_is_added_to(tmp_path, dense)


@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_weights_of_torchao_at_real_widths_have_the_gradients_of_the_dequantised_model(
    tmp_path: Path, kind: str
) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    loaded = load_quantised(tmp_path, TorchAoConfig(getattr(torchao, kind)()))
    state = loaded.state_dict()
    dense = with_weights({name: w.dequantize() if hasattr(w, "qdata") else w for name, w in state.items()})
    assert not torch.equal(dense.model.layers[0].mlp.up_proj.weight, wide_model().model.layers[0].mlp.up_proj.weight)
    assert_same(gradients_of(loaded), gradients_of(dense))
    assert_an_adapter_is_added_to(tmp_path, dense)


COMPRESSED = {
    "int-quantized": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
    "pack-quantized": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
    "float-quantized": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True},
}


def write_compressed(root: Path, schemes: dict[str, str]) -> LlamaForCausalLM:
    """Write a model whose layers are compressed in the format that is given for their names; return it with rounded weights."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
        fake_quantize,
    )

    model, dense = wide_model(), wide_model()
    groups = {
        name: QuantizationScheme(targets=[name], format=kind, weights=QuantizationArgs(**COMPRESSED[kind]))
        for name, kind in schemes.items()
    }
    apply_quantization_config(
        model, QuantizationConfig(config_groups=groups, ignore=["lm_head"], quantization_status="frozen")
    )
    for path, module in model.named_modules():
        if hasattr(module, "weight_scale"):
            arguments = module.quantization_scheme.weights
            by_group = module.weight.data.unflatten(1, (-1, arguments.group_size or module.in_features))
            largest = 448 if arguments.type == "float" else 2 ** (arguments.num_bits - 1) - 1
            module.weight_scale.data = (by_group.abs().amax(-1) / largest).reshape(module.weight_scale.shape)
            rounded = fake_quantize(module.weight.data, module.weight_scale, None, arguments)
            dense.get_submodule(path).weight.data = rounded.clone()
    compressor = compressors.ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(root / "packed")
    compressor.update_config(str(root / "packed"))
    return dense


@pytest.mark.parametrize(
    "schemes",
    [
        *({"Linear": kind} for kind in COMPRESSED),
        {r"re:.*self_attn.*": "float-quantized", r"re:.*mlp.*": "pack-quantized"},
        {r"re:.*mlp.*": "pack-quantized", r"re:.*self_attn.*": "int-quantized"},
    ],
    ids=lambda schemes: " and ".join(schemes.values()),
)
def test_compressed_tensors_are_dequantised_as_they_are_loaded_each_layer_by_its_own_scheme(
    tmp_path: Path, schemes: dict[str, str]
) -> None:
    dense = write_compressed(tmp_path, schemes)
    original, loaded = wide_model(), load_packed(tmp_path)
    assert not stays_quantised(tmp_path / "packed", CPU)
    assert loaded.state_dict().keys() == dense.state_dict().keys()
    assert not loaded._forward_pre_hooks, "nothing is left to unpack"
    for name, weight in dense.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight)
        assert torch.equal(weight, original.state_dict()[name]) != name.endswith("_proj.weight")
    assert_same(gradients_of(loaded), gradients_of(dense))
    assert_an_adapter_is_added_to(tmp_path, dense)


def packed(values: Tensor, dim: int, order: tuple[int, ...] = tuple(range(8))) -> Tensor:
    """Return whole numbers of four bits, eight along a side in one of 32 bits."""
    eights = values.long().movedim(dim, 1).unflatten(1, (-1, 8))
    words = sum(eights[:, :, place] << (4 * k) for k, place in enumerate(order))
    return (words - (words >= 2**31).long() * 2**32).to(torch.int32).movedim(1, dim).contiguous()


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_weights_of_gptq_and_awq_are_dequantised_as_they_are_loaded(tmp_path: Path, method: str) -> None:
    pytest.importorskip("gptqmodel")
    pytest.importorskip("optimum")
    group, tensors, expected = 32, {}, {}
    for name, weight in wide_model().state_dict().items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight
            continue
        groups = weight.T.unflatten(0, (-1, group))
        low, high = groups.amin(1), groups.amax(1)
        scales = ((high - low) / 15).half()
        zeros = (-low / scales.float()).round().clamp(1, 15)
        whole = (groups / scales.float()[:, None] + zeros[:, None]).round().clamp(0, 15)
        expected[name] = ((whole - zeros[:, None]) * scales.float()[:, None]).flatten(0, 1).T.contiguous()
        whole, stem = whole.flatten(0, 1), name.removesuffix("weight")
        if method == "gptq":
            tensors[f"{stem}qweight"], tensors[f"{stem}qzeros"] = packed(whole, 0), packed(zeros - 1, 1)
            tensors[f"{stem}g_idx"] = (torch.arange(len(whole)) // group).to(torch.int32)
        else:
            order = (0, 2, 4, 6, 1, 3, 5, 7)
            tensors[f"{stem}qweight"], tensors[f"{stem}qzeros"] = packed(whole, 1, order), packed(zeros, 1, order)
        tensors[f"{stem}scales"] = scales
    (tmp_path / "packed").mkdir()
    save_file(tensors, tmp_path / "packed/model.safetensors", metadata={"format": "pt"})
    quantised = {"quant_method": method, "bits": 4, "group_size": group}
    quantised |= {"desc_act": False, "sym": False} if method == "gptq" else {"version": "gemm", "zero_point": True}
    config = {**wide_model().config.to_dict(), "quantization_config": quantised, "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "packed/config.json").write_text(json.dumps(config))
    loaded, dense = load_packed(tmp_path), with_weights(expected)
    for name, weight in dense.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
    assert_same(gradients_of(loaded), gradients_of(with_weights(loaded.state_dict())))
    assert not stays_quantised(tmp_path / "packed", CPU)
    assert_an_adapter_is_added_to(tmp_path, with_weights(loaded.state_dict()))


def test_fp8_weights_with_a_scale_for_each_block_are_dequantised_as_they_are_loaded(tmp_path: Path) -> None:
    tensors, expected = {}, {}
    for name, weight in wide_model().state_dict().items():
        tensors[name] = weight
        if name.endswith("_proj.weight"):
            rows, columns = -(-weight.shape[0] // 128), -(-weight.shape[1] // 128)
            scale = weight.abs().max() / 448
            tensors[name] = (weight / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = scale.expand(rows, columns).contiguous()
            expected[name] = tensors[name].float() * scale
    (tmp_path / "packed").mkdir()
    save_file(tensors, tmp_path / "packed/model.safetensors", metadata={"format": "pt"})
    quantised = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    config = {**wide_model().config.to_dict(), "quantization_config": quantised, "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "packed/config.json").write_text(json.dumps(config))
    loaded, dense = load_packed(tmp_path), with_weights(expected)
    assert not stays_quantised(tmp_path / "packed", CPU)
    found, wanted = gradients_of(loaded).gradients, gradients_of(dense).gradients
    for layer, gradient in wanted.items():
        assert (found[layer] - gradient).norm() < 1e-2 * gradient.norm(), layer
    assert_an_adapter_is_added_to(tmp_path, with_weights(loaded.state_dict()))


MOE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts_per_tok": 2,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def write_packed(root: Path, model: PreTrainedModel, tensors: dict[str, Tensor], quantised: dict[str, Any]) -> None:
    (root / "packed").mkdir()
    save_file(tensors, root / "packed/model.safetensors", metadata={"format": "pt"})
    config = {**model.config.to_dict(), "quantization_config": quantised, "architectures": [type(model).__name__]}
    (root / "packed/config.json").write_text(json.dumps(config))


def test_experts_of_gpt_oss_in_mxfp4_are_dequantised_as_they_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GptOssForCausalLM(GptOssConfig(**MOE, intermediate_size=32, num_local_experts=4)).eval()
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values, tensors, expected = torch.cat([magnitudes, -magnitudes]), {}, {}
    for name, weight in model.state_dict().items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = weight.clone()
            continue
        groups = weight.mT.contiguous().unflatten(2, (-1, 32))
        exponents = groups.abs().amax(-1).log2().floor() - 2
        nearest = ((groups / 2 ** exponents[..., None])[..., None] - values).abs().argmin(-1)
        tensors[f"{name}_blocks"] = (nearest[..., 0::2] | nearest[..., 1::2] << 4).to(torch.uint8).contiguous()
        tensors[f"{name}_scales"] = (exponents + 127).to(torch.uint8)
        expected[name] = (values[nearest] * 2 ** exponents[..., None]).flatten(2).mT
    dense = copy.deepcopy(model)
    dense.load_state_dict({**model.state_dict(), **expected})
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    write_packed(tmp_path, model, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": kept})
    assert not stays_quantised(tmp_path / "packed", CPU)
    assert_same(gradients_of(load_packed(tmp_path)), gradients_of(dense))


def test_experts_in_fp8_with_a_scale_for_each_block_are_dequantised_as_they_are_fused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**MOE, moe_intermediate_size=32, num_experts=4)).eval()
    model.save_pretrained(tmp_path / "dense")
    tensors = load_file(tmp_path / "dense/model.safetensors")
    dense = dict(tensors)
    for name, weight in list(tensors.items()):
        if name.endswith("_proj.weight"):
            scale = weight.abs().max() / 448
            tensors[name] = (weight / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = scale.view(1, 1)
            dense[name] = tensors[name].float() * scale
    assert any("experts.3.down_proj" in name for name in dense), "weights lie expert by expert on disk"
    save_file(dense, tmp_path / "dense/model.safetensors", metadata={"format": "pt"})
    quantised = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    write_packed(tmp_path, model, tensors, quantised)
    files = CheckpointFiles("dense", tmp_path / "dense", None)
    expected = Checkpoints(path=str(tmp_path)).load_model(files, "float32", CPU)
    assert_same(gradients_of(load_packed(tmp_path)), gradients_of(expected))


# --- Refusals --------------------------------------------------------------------------------------------------------


def test_weights_that_let_no_gradient_through_are_refused_by_their_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    monkeypatch.setattr(Bnb4BitHfQuantizer, "is_trainable", False)
    monkeypatch.setattr(Bnb4BitHfQuantizer, "validate_environment", lambda *_, **__: None)
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
    with pytest.raises(CheckpointError, match="quantised by bitsandbytes, which are made for inference"):
        refuse_unsupported_quantization(tmp_path)


def test_packed_layers_of_other_kinds_are_refused_by_their_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.quantizers.quantizer_aqlm import AqlmHfQuantizer

    monkeypatch.setattr(AqlmHfQuantizer, "validate_environment", lambda *_, **__: None)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "aqlm"}}))
    with pytest.raises(
        CheckpointError, match="quantised by aqlm, whose layers are not such as gradients are collected in"
    ):
        refuse_unsupported_quantization(tmp_path)


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
    with pytest.raises(CheckpointError, match="by roman-numerals, which transformers does not know: name the model"):
        refuse_unsupported_quantization(quantised_by_torchao, CPU)


def test_weights_that_mlx_quantised_are_refused_by_its_name_which_they_do_not_say(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"group_size": 64, "bits": 4}}))
    with pytest.raises(CheckpointError, match="quantised by MLX, which transformers does not know"):
        refuse_unsupported_quantization(tmp_path)


def test_notes_that_a_library_trips_over_are_refused_in_words(tmp_path: Path) -> None:
    # As torchao's were written until 0.10.
    notes = {"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 128}}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": notes}))
    with pytest.raises(CheckpointError, match="quantised by torchao, which cannot run here"):
        refuse_unsupported_quantization(tmp_path)


def test_a_library_that_is_half_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_gptqmodel(*_: Any, **__: Any) -> None:
        raise NameError("name 'QuantizeConfig' is not defined")

    monkeypatch.setattr("transformers.quantizers.quantizer_gptq.GptqHfQuantizer.__init__", without_gptqmodel)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(CheckpointError, match=r"cannot run here: name .* Install gptqmodel and optimum"):
        refuse_unsupported_quantization(tmp_path)


def test_rotations_of_what_layers_read_are_refused(tmp_path: Path) -> None:
    rotation = {"type": "hadamard", "apply": [{"targets": ["re:.*down_proj$"], "location": "input"}]}
    notes = {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"R4": rotation}}}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": notes}))
    with pytest.raises(CheckpointError, match=r"rotations of what its layers read or write \(R4, 1 such"):
        refuse_unsupported_quantization(tmp_path)


@pytest.mark.parametrize("location", [None, ["input"], {"at": "input"}])
@pytest.mark.parametrize("targets", [None, 3])
def test_notes_of_another_shape_end_in_a_sentence(tmp_path: Path, location: Any, targets: Any) -> None:
    rotation = {"type": "hadamard", "apply": [{"targets": targets, "location": location}]}
    schemes = {"group_0": {"targets": targets}, "group_1": {"targets": targets}}
    notes = {
        "quant_method": "compressed-tensors",
        "config_groups": schemes,
        "transform_config": {"config_groups": {"R4": rotation}},
    }
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": notes}))
    with pytest.raises(CheckpointError, match="quantised by compressed-tensors"):
        refuse_unsupported_quantization(tmp_path)


def test_rotations_that_are_in_the_weights_are_not_refused(tmp_path: Path) -> None:
    write_compressed(tmp_path, {"Linear": "int-quantized"})
    file = tmp_path / "packed/config.json"
    config = json.loads(file.read_text())
    rotation = {"type": "hadamard", "apply": [{"targets": ["Linear"], "location": "weight_input"}]}
    config["quantization_config"]["transform_config"] = {"config_groups": {"R1": rotation}}
    file.write_text(json.dumps(config))
    refuse_unsupported_quantization(tmp_path / "packed")


def test_what_a_model_that_sees_notes_of_its_language_model_is_found(tmp_path: Path) -> None:
    notes = {"quant_method": "aqlm", "in_group_size": 8}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"quantization_config": notes}}))
    assert quantization(tmp_path) == notes


def test_other_checkpoints_are_not_quantised(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    assert quantization(tmp_path) is None
    refuse_unsupported_quantization(tmp_path, CPU)
    (tmp_path / "config.json").write_text("{")
    assert quantization(tmp_path) is None
