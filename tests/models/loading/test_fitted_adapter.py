"""Adapters held against the model that they are put on: what their file lacks is refused before any numbers are computed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, AdaLoraModel, PeftConfig, VBLoRAConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import tiny_tokenizer
from tests.models.tiny_adapters import TARGETS, lora, with_peft, write_adapter, write_base

CPU = DeviceGroup.of("cpu")
TO_CHECK = "is adapter_config.json that of these weights, and was the adapter trained on this base model?"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base", tiny_tokenizer())


@pytest.fixture
def with_biases(tmp_path: Path) -> Path:
    """A GPT-2, whose layers have biases."""
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(vocab_size=280, initializer_range=0.2, **sizes)).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def change(adapter: Path, **fields: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def drop(adapter: Path, is_lost: Callable[[str], bool]) -> list[str]:
    """Take weights out of an adapter's file, and return their names, sorted."""
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if not is_lost(name)}, file, metadata={"format": "pt"})
    return sorted(filter(is_lost, tensors))


def refusal(adapter: Path) -> str:
    """What is said before anything is loaded, and as it is loaded."""
    checkpoints = Checkpoints(path=str(adapter))
    files = checkpoints.get(adapter.name)
    with pytest.raises(CheckpointError) as first:
        checkpoints.skeleton(files)
    with pytest.raises(CheckpointError) as second:
        checkpoints.load_model(files, "float32", CPU)
    assert str(first.value) == str(second.value)
    return str(first.value)


def assert_merged_as_by_peft(base: Path, adapter: Path) -> None:
    checkpoints = Checkpoints(path=str(adapter))
    files = checkpoints.get(adapter.name)
    model, skeleton = checkpoints.load_model(files, "float32", CPU), checkpoints.skeleton(files)
    expected = with_peft(base, adapter).merge_and_unload(safe_merge=True).state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert {n: p.shape for n, p in skeleton.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    plain = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert any(not torch.equal(plain[name], tensor) for name, tensor in found.items())


# --- Weights that the file lacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_an_adapter_trained_are_merged_and_refused_where_its_file_lacks_them(
    with_biases: Path, tmp_path: Path, bias: str
) -> None:
    adapter = write_adapter(tmp_path / "checkpoint-20", with_biases, lora(bias=bias, target_modules=["c_attn"]))
    assert_merged_as_by_peft(with_biases, adapter)
    lost = drop(adapter, lambda name: name.endswith(".bias"))
    assert refusal(adapter) == (
        f"the adapter {adapter} holds no weight for {lost[0]} ({len(lost)} such), which its configuration says it trained "
        f"(`bias = {bias!r}`); {TO_CHECK}"
    )


def test_an_adapter_that_trains_all_biases_of_a_model_without_any_is_merged(base: Path, tmp_path: Path) -> None:
    assert_merged_as_by_peft(base, write_adapter(tmp_path / "checkpoint-20", base, lora(bias="all")))


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("modules_to_save", ["lm_head"], "base_model.model.lm_head.weight"),
        ("trainable_token_indices", [3], "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"),
    ],
)
def test_what_an_adapter_trained_whole_and_its_file_lacks_is_refused_by_name(
    base: Path, tmp_path: Path, field: str, value: object, name: str
) -> None:
    adapter = write_adapter(tmp_path / "checkpoint-20", base)
    change(adapter, **{field: value})
    assert refusal(adapter) == (
        f"the adapter {adapter} holds no weight for {name} (1 such), which its configuration says it trained (`{field}`); "
        f"{TO_CHECK}"
    )


@pytest.mark.parametrize("lost", ["vector_bank", "layers.1.self_attn.q_proj.vblora_logits_A"])
def test_a_weight_that_layers_share_is_needed_once(base: Path, tmp_path: Path, lost: str) -> None:
    config = VBLoRAConfig(task_type="CAUSAL_LM", r=2, vector_length=8, num_vectors=8, target_modules=TARGETS)
    adapter = write_adapter(tmp_path / "checkpoint-20", base, config)
    Checkpoints(path=str(adapter)).skeleton(Checkpoints(path=str(adapter)).get("checkpoint-20"))
    assert drop(adapter, lambda name: lost in name)
    assert f"{lost.rpartition('.')[2]}" in refusal(adapter)
    assert "which would be random" in refusal(adapter)


# --- Ranks that training allocated -----------------------------------------------------------------------------------


def write_allocated(folder: Path, base: Path) -> PeftConfig:
    """Train an AdaLoRA until some layers have fewer ranks than others, and save it."""
    torch.manual_seed(0)
    schedule = {"init_r": 4, "target_r": 1, "tinit": 1, "tfinal": 2, "deltaT": 1, "total_step": 8}
    config = AdaLoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS, **schedule)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    config.base_model_name_or_path = str(base)
    assert isinstance(adapted.base_model, AdaLoraModel)
    optimizer = torch.optim.SGD([one for one in adapted.parameters() if one.requires_grad], lr=1.0)
    ids = torch.randint(0, 280, (2, 12))
    for step in range(9):
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        adapted.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    adapted.save_pretrained(folder)
    return config


def test_an_adalora_that_allocated_its_ranks_is_merged_as_by_peft(base: Path, tmp_path: Path) -> None:
    config = write_allocated(tmp_path / "checkpoint-20", base)
    ranks = {sum(kept) for kept in config.rank_pattern.values()}
    assert len(ranks) > 1
    assert min(ranks) == 0
    assert_merged_as_by_peft(base, tmp_path / "checkpoint-20")


def test_an_adalora_whose_ranks_are_not_those_of_its_weights_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "checkpoint-20"
    config = write_allocated(adapter, base)
    change(adapter, rank_pattern={name: [True] * 4 for name in config.rank_pattern})
    assert "where its configuration and its base model ask for [4" in refusal(adapter)


# --- Configurations that cannot be followed --------------------------------------------------------------------------


@pytest.mark.parametrize("bias", ["some", None])
def test_biases_of_a_kind_that_peft_does_not_know_are_refused_in_these_words(
    base: Path, tmp_path: Path, bias: str | None
) -> None:
    adapter = write_adapter(tmp_path / "checkpoint-20", base)
    change(adapter, bias=bias)
    assert refusal(adapter) == (
        f"the adapter {adapter} says `bias = {bias!r}` in its configuration, where peft knows 'none', 'all' and, of a LoRA, "
        "'lora_only': correct adapter_config.json to what it was trained with"
    )


def test_an_adapter_by_loftq_is_refused_before_anything_is_loaded_where_there_is_no_gpu(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    adapter = write_adapter(tmp_path / "checkpoint-20", base)
    change(adapter, init_lora_weights="loftq", loftq_config={"loftq_bits": 4})
    assert refusal(adapter).startswith(
        f"the adapter {adapter} began with LoftQ (`init_lora_weights = 'loftq'`): peft quantises its base model anew, by "
        "bitsandbytes and on a GPU alone; found no GPU and "
    )


@pytest.mark.parametrize(("start", "name"), [("pissa", "PiSSA"), ("olora", "OLoRA"), ("mica", "MiCA")])
def test_a_base_model_of_a_type_that_peft_does_not_decompose_is_refused_with_the_setting(
    base: Path, tmp_path: Path, start: str, name: str
) -> None:
    adapter = write_adapter(tmp_path / "checkpoint-20", base, lora(init_lora_weights=start))
    checkpoints = Checkpoints(path=str(adapter))
    files = checkpoints.get("checkpoint-20")
    with pytest.raises(CheckpointError) as error:
        checkpoints.load_model(files, "float64", CPU)
    assert str(error.value) == (
        f"the adapter {adapter} began with {name} (`init_lora_weights = {start!r}`), and peft decomposes weights of its base "
        'model in float32, float16, bfloat16 alone, not in float64: set `recipe.model_dtype = "float32"`'
    )
    assert checkpoints.load_model(files, "bfloat16", CPU).dtype == torch.bfloat16
