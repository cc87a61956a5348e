"""Adapters of PEFT: found with their base models, refused where no weights are equal to them, and loaded exactly."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from peft import (
    AdaLoraConfig,
    BeftConfig,
    BOFTConfig,
    C3AConfig,
    FourierFTConfig,
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    MissConfig,
    OFTConfig,
    PeftConfig,
    PromptTuningConfig,
    RandLoraConfig,
    RoadConfig,
    ShiraConfig,
    VBLoRAConfig,
    VeraConfig,
    get_peft_model,
)
from peft.tuners.lora.config import MontecloraConfig
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from lorif_assets.errors import CheckpointError
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.gradients.token_losses import next_tokens, summed_cross_entropies
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import tiny_tokenizer
from tests.models.gguf_model import trained_tokenizer, write_gguf
from tests.models.tiny_adapters import TARGETS, lora, with_peft, write_adapter, write_base

CPU = DeviceGroup.of("cpu")
IDS = torch.tensor([[3, 14, 15, 9, 26, 5]])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model in `models/base`, and adapters on it as a trainer leaves them, in `run`. Read it, and leave it."""
    root = tmp_path_factory.mktemp("adapters")
    base = write_base(root / "models/base", tiny_tokenizer())
    for step in (20, 40):
        write_adapter(root / f"run/checkpoint-{step}", base, seed=step)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of all of it, whose adapters name the copied base model."""
    root = Path(shutil.copytree(made, tmp_path / "project"))
    for adapter in (root / "run").iterdir():
        name_base(adapter, str(root / "models/base"))
    return root


def name_base(adapter: Path, base: str | None, **fields: Any) -> None:
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "base_model_name_or_path": base, **fields}))


def checkpoints(path: Path, **options: Any) -> Checkpoints:
    return Checkpoints(path=str(path), **options)


def names(found: Checkpoints) -> list[tuple[str, int | None]]:
    return [(checkpoint.name, checkpoint.step) for checkpoint in found.find()]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS.clamp(max=model.get_input_embeddings().weight.shape[0] - 1)).logits


# --- Finding the base model ------------------------------------------------------------------------------------------


def test_adapters_come_with_their_base_model_as_step_zero(project: Path) -> None:
    assert names(checkpoints(project / "run")) == [("base", 0), ("checkpoint-20", 20), ("checkpoint-40", 40)]
    assert all(checkpoint.is_complete() for checkpoint in checkpoints(project / "run").find())


def test_the_base_model_is_named_after_its_folder(project: Path) -> None:
    (project / "models/base").rename(project / "models/llama 1b")
    found = checkpoints(project / "run", base_model=str(project / "models/llama 1b"))
    assert names(found)[0] == ("base-llama_1b", 0)


def test_the_base_model_can_be_left_out(project: Path) -> None:
    found = checkpoints(project / "run", include_base=False)
    assert names(found) == [("checkpoint-20", 20), ("checkpoint-40", 40)]
    assert all(checkpoint.is_complete() for checkpoint in found.find())


def test_an_adapters_folder_alone_is_a_checkpoint(project: Path) -> None:
    assert names(checkpoints(project / "run/checkpoint-40")) == [("base", 0), ("checkpoint-40", 40)]


def test_a_base_model_beside_its_adapters_is_step_zero_under_its_own_name(project: Path) -> None:
    shutil.copytree(project / "models/base", project / "run/start-7")
    for step in (20, 40):
        name_base(project / f"run/checkpoint-{step}", str(project / "run/start-7"))
    assert names(checkpoints(project / "run")) == [("start-7", 0), ("checkpoint-20", 20), ("checkpoint-40", 40)]
    assert [name for name, _ in names(checkpoints(project / "run", include_base=False))] == [
        "checkpoint-20",
        "checkpoint-40",
    ]


@pytest.mark.parametrize("named", ["models/base", "../../models/base", "./models/base"])
def test_a_relative_base_starts_at_the_adapter_or_at_a_folder_above_it(project: Path, named: str) -> None:
    name_base(project / "run/checkpoint-20", named)
    (found,) = [files for files in checkpoints(project / "run").find() if files.name == "checkpoint-20"]
    assert found.base.path == project / "models/base"


def test_the_settings_base_wins_over_the_one_that_the_adapters_name(project: Path) -> None:
    other = Path(shutil.copytree(project / "models/base", project / "models/other"))
    found = checkpoints(project / "run", base_model=str(other))
    assert names(found)[0] == ("base-other", 0)
    assert {checkpoint.base.path for checkpoint in found.find()} == {other}


def test_the_base_model_of_whole_models_is_step_zero_too(project: Path) -> None:
    shutil.rmtree(project / "run")
    for step in (20, 40):
        write_base(project / f"run/checkpoint-{step}", tiny_tokenizer(), seed=step)
    found = checkpoints(project / "run", base_model=str(project / "models/base"))
    assert names(found) == [("base", 0), ("checkpoint-20", 20), ("checkpoint-40", 40)]


def test_an_adapter_in_the_folder_of_its_base_is_two_checkpoints(project: Path) -> None:
    for file in (project / "models/base").iterdir():
        shutil.copy(file, project / "run/checkpoint-40" / file.name)
    name_base(project / "run/checkpoint-40", "/elsewhere/base")
    resource = checkpoints(project / "run/checkpoint-40", base_model=str(project / "run/checkpoint-40"))
    base, adapter = resource.find()
    assert (base.name, base.step, adapter.name) == ("base-checkpoint-40", 0, "checkpoint-40")
    plain = AutoModelForCausalLM.from_pretrained(project / "models/base")
    assert torch.equal(logits(resource.load_model(base, "float32", CPU)), logits(plain))
    expected = with_peft(project / "models/base", project / "run/checkpoint-40").merge_and_unload()
    assert torch.equal(logits(resource.load_model(adapter, "float32", CPU)), logits(expected))


def test_a_hub_name_is_looked_up_in_the_local_cache(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(project / "cache"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(project / "cache"))
    repository = project / "cache/models--tiny--llama"
    shutil.copytree(project / "models/base", repository / "snapshots/abc123")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc123")
    for step in (20, 40):
        name_base(project / f"run/checkpoint-{step}", "tiny/llama")
    base, adapter, _ = checkpoints(project / "run").find()
    assert base.name == "base-llama"
    assert adapter.base.path == (repository / "snapshots/abc123").resolve()


def test_an_adapter_with_a_name_lies_one_folder_below_its_step(project: Path) -> None:
    step = project / "run/checkpoint-20"
    shutil.copytree(step, project / "inner")
    shutil.rmtree(step)
    step.mkdir()
    (project / "inner").rename(step / "mine")
    assert names(checkpoints(project / "run")) == [("base", 0), ("checkpoint-20", 20), ("checkpoint-40", 40)]


# --- Refusals before loading -----------------------------------------------------------------------------------------


def refusal(root: Path, name: str = "checkpoint-20", **options: Any) -> str:
    resource = checkpoints(root / "run", **options)
    (files,) = [files for files in resource.find() if files.name == name]
    assert not files.is_complete()
    with pytest.raises(CheckpointError) as error:
        resource.get(name)
    assert files.fault() == str(error.value)
    return str(error.value)


@pytest.mark.parametrize("named", ["/nowhere/base", "no/such-base"])
def test_a_base_model_that_is_not_there_is_an_error_that_names_the_setting(project: Path, named: str) -> None:
    name_base(project / "run/checkpoint-20", named)
    message = refusal(project)
    assert named in message
    assert "checkpoint-20" in message
    assert "Set `checkpoints.base_model`" in message


def test_an_adapter_that_names_no_base_model_is_refused(project: Path) -> None:
    name_base(project / "run/checkpoint-20", None)
    assert "does not say what its base model is; set `checkpoints.base_model`" in refusal(project)


def test_a_base_model_of_the_settings_that_is_not_there_is_an_error(project: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'/nowhere/base' of `checkpoints\.base_model` was not found"):
        checkpoints(project / "run", base_model="/nowhere/base").find()


def test_a_base_model_that_is_an_adapter_itself_is_refused(project: Path) -> None:
    name_base(project / "run/checkpoint-20", "../checkpoint-40")
    assert "is an adapter itself" in refusal(project)
    (project / "run/checkpoint-40/config.json").write_text("{}")
    assert "is an adapter itself" in refusal(project)


def test_a_merged_model_beside_its_adapter_is_not_merged_once_more(project: Path) -> None:
    step = project / "run/checkpoint-20"
    with_peft(project / "models/base", step).merge_and_unload().save_pretrained(project / "merged")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(project / "merged" / name, step / name)
    assert f"whose weights are not those of the adapter's base model {project / 'models/base'}" in refusal(project)
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(project / "models/base" / name, step / name)
    assert checkpoints(project / "run").get("checkpoint-20").base.path == step


@pytest.mark.parametrize("named", [None, "/elsewhere/base"])
def test_a_model_beside_its_adapter_that_may_be_the_merged_one_is_not_taken_for_the_base(
    project: Path, named: str | None
) -> None:
    step = project / "run/checkpoint-20"
    with_peft(project / "models/base", step).merge_and_unload().save_pretrained(step)
    name_base(step, named)
    assert refusal(project).startswith(
        f"{step} holds an adapter and a whole model, which may be the base model or, as torchtune writes it, have the adapter "
        "merged into it: set `checkpoints.base_model` to the model that the training began with, which is this folder only "
        "where the whole model was not merged; "
    )


def test_a_quantised_base_model_whose_library_is_missing_is_refused(project: Path) -> None:
    file = project / "models/base/config.json"
    quantised = {"quant_method": "roman-numerals"}
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": quantised}))
    resource = checkpoints(project / "run")
    files = resource.get("checkpoint-20")
    for refused in (lambda: resource.skeleton(files), lambda: resource.load_model(files, "float32", CPU)):
        with pytest.raises(
            CheckpointError, match=r"base has weights quantised by roman-numerals, which transformers does not know"
        ):
            refused()


def test_a_damaged_base_model_makes_its_adapters_incomplete(project: Path) -> None:
    weights = project / "models/base/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (files,) = [files for files in checkpoints(project / "run").find() if files.name == "checkpoint-20"]
    assert files.fault() == f"{weights} is cut short, or still being written"


def _without_weights(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()


def _pickled(adapter: Path) -> None:
    _without_weights(adapter)
    (adapter / "adapter_model.bin").write_bytes(b"")


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (
        _without_weights,
        "has no adapter_model.safetensors: the copy is incomplete, or still being written",
    ),
    "pickled weights": (_pickled, "only adapter_model.bin, which is a pickle and could run code when loaded"),
    "half a configuration": (lambda adapter: (adapter / "adapter_config.json").write_text("{"), "cannot be read"),
    "a list": (lambda adapter: (adapter / "adapter_config.json").write_text("[]"), "found list in it"),
    "an adapter of another library": (
        lambda adapter: (adapter / "adapter_config.json").write_text('{"fine_tune_type": "lora", "num_layers": 16}'),
        "says no `peft_type`: the adapter is not PEFT's",
    ),
    "a router in each layer": (lambda adapter: name_base(adapter, "x", peft_type="LILY"), "of the kind LILY, which"),
    "prompts": (lambda adapter: name_base(adapter, "x", peft_type="PROMPT_TUNING"), "of the kind PROMPT_TUNING, which"),
    "an activated LoRA": (
        lambda adapter: name_base(adapter, "x", alora_invocation_tokens=[1, 2]),
        "of the kind LORA with `alora_invocation_tokens`, which cannot be merged",
    ),
    "repeated layers": (
        lambda adapter: name_base(adapter, "x", layer_replication=[[0, 2], [1, 2]]),
        "of the kind LORA with `layer_replication`",
    ),
    "starting values that change the base": (
        lambda adapter: name_base(adapter, "x", init_lora_weights="pissa_niter_16"),
        "`init_lora_weights = 'pissa_niter_16'`, which was trained beside a changed base model",
    ),
    "starting values by gradients": (
        lambda adapter: name_base(adapter, "x", init_lora_weights="lora_ga"),
        "save it as a plain LoRA, by `save_pretrained` with `path_initial_model_for_weight_conversion`",
    ),
    "a classifier": (lambda adapter: name_base(adapter, "x", task_type="SEQ_CLS"), "for the task SEQ_CLS"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_adapter_that_cannot_become_a_model_is_refused_before_anything_is_loaded(project: Path, what: str) -> None:
    damage, message = REFUSED[what]
    damage(project / "run/checkpoint-20")
    assert message in refusal(project)


def test_what_peft_saves_of_learned_prompts_is_refused(project: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(project / "models/base")
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(model, prompts).save_pretrained(project / "run/checkpoint-60")
    assert "of the kind PROMPT_TUNING, which cannot be merged" in refusal(project, "checkpoint-60")


def test_an_adapter_of_another_model_is_refused_by_its_skeleton(project: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=280, n_embd=16, n_layer=2, n_head=2)).save_pretrained(project / "models/gpt2")
    tiny_tokenizer().save_pretrained(project / "models/gpt2")
    resource = checkpoints(project / "run", base_model=str(project / "models/gpt2"))
    files = resource.get("checkpoint-20")
    for refused in (lambda: resource.skeleton(files), lambda: resource.load_model(files, "float32", CPU)):
        with pytest.raises(CheckpointError, match=r"checkpoint-20 cannot be put on its base model: Target modules"):
            refused()


def test_an_adapter_of_a_model_of_another_width_is_refused_in_one_sentence(made: Path, project: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=280, **sizes)).save_pretrained(project / "models/wide")
    tiny_tokenizer().save_pretrained(project / "models/wide")
    resource = checkpoints(project / "run", base_model=str(project / "models/wide"))
    with pytest.raises(CheckpointError) as error:
        resource.skeleton(resource.get("checkpoint-20"))
    assert str(error.value) == (
        f"the adapter {project / 'run/checkpoint-20'} holds base_model.model.model.layers.0.self_attn.q_proj.lora_A.default"
        ".weight of the shape [3, 16] (12 such), where its configuration and its base model ask for [3, 32]; was it trained "
        "on another one?"
    )


def test_a_kind_that_peft_does_not_know_is_refused_with_the_version_that_saved_it(project: Path) -> None:
    name_base(project / "run/checkpoint-20", str(project / "models/base"), peft_type="BONE", peft_version="0.18.0")
    resource = checkpoints(project / "run")
    with pytest.raises(
        CheckpointError, match=r"of the kind BONE, which peft \S+ does not know, and was saved by peft 0\.18\.0"
    ):
        resource.skeleton(resource.get("checkpoint-20"))


def test_fields_that_peft_does_not_know_are_named_where_they_say_something(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name_base(project / "run/checkpoint-20", str(project / "models/base"), use_what_is_next=True, next_config=None)
    resource = checkpoints(project / "run")
    for _ in range(2):
        resource.skeleton(resource.get("checkpoint-20"))
    (message,) = caplog.messages
    assert "checkpoint-20 says use_what_is_next in its configuration, which peft" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop(min(tensors)),
            r"holds no weight for .*lora_A.* \(1 such\), which would be random",
        ),
        (lambda tensors: tensors.update({min(tensors).replace("layers.0", "layers.9"): torch.ones(3, 24)}), "no place"),
        (lambda tensors: tensors.update({min(tensors): torch.ones(3, 5)}), r"of the shape \[3, 5\] \(1 such\)"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(
    project: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    weights = project / "run/checkpoint-20/adapter_model.safetensors"
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights, metadata={"format": "pt"})
    resource = checkpoints(project / "run")
    with pytest.raises(CheckpointError, match=message):
        resource.skeleton(resource.get("checkpoint-20"))
    with pytest.raises(CheckpointError, match=message):
        resource.load_model(resource.get("checkpoint-20"), "float32", CPU)


# --- Merged weights --------------------------------------------------------------------------------------------------

KINDS: dict[str, Any] = {
    "LoRA": lora,
    "rsLoRA": lambda: lora(use_rslora=True),
    "DoRA": lambda: lora(use_dora=True),
    "PiSSA": lambda: lora(init_lora_weights="pissa"),
    "OLoRA": lambda: lora(init_lora_weights="olora"),
    "LoRA and whole modules": lambda: lora(modules_to_save=["lm_head", "embed_tokens"]),
    "LoRA on embeddings": lambda: lora(target_modules=["q_proj", "embed_tokens"]),
    "LoRA and single tokens": lambda: lora(trainable_token_indices=[3, 14]),
    "IA3": lambda: IA3Config(task_type="CAUSAL_LM", target_modules=TARGETS, feedforward_modules=["down_proj"]),
    "LoHa": lambda: LoHaConfig(task_type="CAUSAL_LM", r=2, target_modules=TARGETS),
    "VeRA": lambda: VeraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"]),
    "AdaLoRA": lambda: AdaLoraConfig(task_type="CAUSAL_LM", target_modules=TARGETS, total_step=10),
    "LoKr": lambda: LoKrConfig(task_type="CAUSAL_LM", r=2, target_modules=TARGETS),
    "OFT": lambda: OFTConfig(task_type="CAUSAL_LM", oft_block_size=4, target_modules=TARGETS),
    "LoRA in one block": lambda: lora(layers_to_transform=[1]),
    "LoRA of other ranks": lambda: lora(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 9}),
    "BOFT": lambda: BOFTConfig(task_type="CAUSAL_LM", boft_block_size=4, target_modules=TARGETS),
    "FourierFT": lambda: FourierFTConfig(task_type="CAUSAL_LM", n_frequency=9, target_modules=TARGETS),
    "HRA": lambda: HRAConfig(task_type="CAUSAL_LM", r=2, target_modules=TARGETS),
    "MiSS": lambda: MissConfig(task_type="CAUSAL_LM", r=2, target_modules=TARGETS),
    "VB-LoRA": lambda: VBLoRAConfig(
        task_type="CAUSAL_LM", r=2, vector_length=8, num_vectors=8, init_vector_bank_bound=1.0, target_modules=TARGETS
    ),
    "DoRA on embeddings": lambda: lora(use_dora=True, target_modules=["q_proj", "embed_tokens"]),
    "RandLoRA": lambda: RandLoraConfig(task_type="CAUSAL_LM", r=2, target_modules=TARGETS),
    "C3A": lambda: C3AConfig(task_type="CAUSAL_LM", block_size=8, target_modules=["q_proj", "v_proj"]),
    "RoAd": lambda: RoadConfig(task_type="CAUSAL_LM", variant="road_4", group_size=8, target_modules=TARGETS),
    "LoRA on all but some": lambda: lora(target_modules="all-linear", exclude_modules=["down_proj"]),
    "MonteCLoRA": lambda: lora(monteclora_config=MontecloraConfig()),
    "layer norms": lambda: LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_is_what_peft_merges_bit_for_bit(made: Path, tmp_path: Path, kind: str) -> None:
    base = made / "models/base"
    adapter = write_adapter(tmp_path / "checkpoint-20", base, KINDS[kind]())
    resource = checkpoints(adapter)
    files = resource.get("checkpoint-20")
    model = resource.load_model(files, "float32", CPU)
    expected = with_peft(base, adapter).merge_and_unload(safe_merge=True).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.items())
    assert not torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(base)))
    assert not model.training
    skeleton = resource.skeleton(files)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert {n: p.shape for n, p in skeleton.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_fused_experts_that_an_adapter_names_as_parameters_are_merged_as_peft_merges_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MixtralConfig(**sizes, vocab_size=280, num_key_value_heads=2, num_local_experts=4, initializer_range=0.2)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = write_adapter(
        tmp_path / "checkpoint-20", tmp_path / "base", lora(target_modules=["q_proj"], target_parameters=targets)
    )
    resource = checkpoints(adapter)
    model = resource.load_model(resource.get("checkpoint-20"), "float32", CPU)
    expected = with_peft(tmp_path / "base", adapter).merge_and_unload().state_dict()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.items())
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").state_dict()
    assert not torch.equal(
        base["model.layers.0.mlp.experts.down_proj"], expected["model.layers.0.mlp.experts.down_proj"]
    )


@pytest.fixture
def on_each_expert(tmp_path: Path) -> Path:
    """A LoRA on each expert of a Mixtral, as it was saved while experts were modules of their own (transformers 4)."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(**sizes, vocab_size=280, num_key_value_heads=2, num_local_experts=4, initializer_range=0.2)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    adapter = write_adapter(tmp_path / "checkpoint-20", tmp_path / "base", lora(target_modules=["q_proj"]))
    tensors = load_file(adapter / "adapter_model.safetensors")
    for expert in range(4):
        for name, (outputs, inputs) in EXPERT.items():
            layer = f"base_model.model.model.layers.0.block_sparse_moe.experts.{expert}.{name}"
            tensors[f"{layer}.lora_A.weight"] = torch.randn(3, inputs)
            tensors[f"{layer}.lora_B.weight"] = torch.randn(outputs, 3)
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    name_base(adapter, str(tmp_path / "base"), target_modules=["q_proj", *EXPERT])
    return adapter


EXPERT = {"w1": (24, 16), "w3": (24, 16), "w2": (16, 24)}


def test_an_adapter_on_each_expert_is_merged_into_the_fused_experts(on_each_expert: Path) -> None:
    resource = checkpoints(on_each_expert)
    files = resource.get("checkpoint-20")
    merged = resource.load_model(files, "float32", CPU).state_dict()
    base = resource.load_model(files.base, "float32", CPU).state_dict()
    tensors = load_file(on_each_expert / "adapter_model.safetensors")
    for expert in range(4):
        prefix = f"base_model.model.model.layers.0.block_sparse_moe.experts.{expert}"
        change = {
            name: 2 * tensors[f"{prefix}.{name}.lora_B.weight"] @ tensors[f"{prefix}.{name}.lora_A.weight"]
            for name in EXPERT
        }
        for fused, expected in (
            ("gate_up_proj", torch.cat([change["w1"], change["w3"]])),
            ("down_proj", change["w2"]),
        ):
            name = f"model.layers.0.mlp.experts.{fused}"
            torch.testing.assert_close(merged[name][expert] - base[name][expert], expected, rtol=1e-5, atol=1e-5)


def test_the_matrices_of_an_adapter_on_each_expert_are_not_tracked(on_each_expert: Path) -> None:
    resource = checkpoints(on_each_expert)
    files = resource.get("checkpoint-20")
    for refused in (
        lambda: resource.skeleton(files, track="adapter"),
        lambda: resource.load_model(files, "float32", CPU, "adapter"),
    ):
        with pytest.raises(
            CheckpointError, match=r"is a LoRA on parameters \(down_proj, gate_up_proj\), whose matrices"
        ):
            refused()


def test_a_merge_that_predicts_something_else_than_the_adapter_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora.layer import Linear

    delta = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, adapter: 2 * delta(layer, adapter))
    resource = checkpoints(project / "run")
    with pytest.raises(CheckpointError, match=r"predicts something else than beside it \(logits differ by"):
        resource.load_model(resource.get("checkpoint-20"), "float32", CPU)


@pytest.mark.parametrize(
    "config", [lora(lora_bias=True, target_modules=["q_proj"]), BeftConfig(target_modules=["q_proj"])]
)
def test_biases_that_an_adapter_adds_to_layers_without_any_are_merged(
    made: Path, tmp_path: Path, config: PeftConfig
) -> None:
    base = made / "models/base"
    adapter = write_adapter(tmp_path / "checkpoint-20", base, config)
    resource = checkpoints(adapter)
    files = resource.get("checkpoint-20")
    model, skeleton = resource.load_model(files, "float32", CPU), resource.skeleton(files)
    torch.testing.assert_close(logits(model), logits(with_peft(base, adapter)), rtol=1e-4, atol=1e-4)
    assert not torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(base)))
    assert {n: p.shape for n, p in skeleton.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    plain = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert resource.load_model(files.base, "float32", CPU).state_dict().keys() == plain.keys()


def test_an_adapter_on_a_gguf_file_is_merged_into_its_dense_weights(project: Path) -> None:
    pytest.importorskip("gguf")
    texts = [f"the quick brown fox number {i}" for i in range(50)]
    base = AutoModelForCausalLM.from_pretrained(project / "models/base")
    (project / "models/packed").mkdir()
    write_gguf(base, trained_tokenizer(texts, 280), project / "models/packed/tiny.gguf")
    name_base(project / "run/checkpoint-20", "../../models/packed")
    resource = checkpoints(project / "run")
    files = resource.get("checkpoint-20")
    assert files.base.path == project / "models/packed"
    expected = with_peft(project / "models/base", files.path).merge_and_unload()
    torch.testing.assert_close(
        logits(resource.load_model(files, "float32", CPU)), logits(expected), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["merged", "run-merged", "merged_16bit"])
def test_a_merged_model_beside_its_adapters_is_passed_over_and_said(project: Path, name: str) -> None:
    with_peft(project / "models/base", project / "run/checkpoint-40").merge_and_unload().save_pretrained(
        project / "run" / name
    )
    found = checkpoints(project / "run").look()
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["base", "checkpoint-20", "checkpoint-40"]
    assert found.notes == [
        f"{project / 'run' / name} is passed over: its name says that it is an adapter merged, and the adapters beside it "
        "are taken. Set `checkpoints.path` to it to attribute it alone"
    ]


def test_what_a_conversion_of_pissa_began_with_is_passed_over_and_said(project: Path) -> None:
    for name in ("pissa_init", "pissa_backup"):
        shutil.copytree(project / "run/checkpoint-20", project / "run" / name)
    found = checkpoints(project / "run").look()
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["base", "checkpoint-20", "checkpoint-40"]
    assert found.notes == [
        f"{project / 'run' / name} is passed over: its name says that it is what an adapter by PiSSA was converted from"
        for name in ("pissa_backup", "pissa_init")
    ]


def test_several_adapters_in_a_step_are_named_as_passed_over(project: Path) -> None:
    for name, trained in (("one", "checkpoint-20"), ("two", "checkpoint-40")):
        shutil.copytree(project / "run" / trained, project / "inner" / name)
    shutil.rmtree(project / "run/checkpoint-20")
    (project / "inner").rename(project / "run/checkpoint-20")
    found = checkpoints(project / "run").look()
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["base", "checkpoint-40"]
    assert any("2 checkpoint(s) inside" in note and "set `checkpoints.path` to it" in note for note in found.notes)
    assert [name for name, _ in names(checkpoints(project / "run/checkpoint-20"))] == ["base", "one", "two"]


def test_adapters_with_names_beside_the_default_one_are_passed_over_with_the_way_to_one_of_them_alone(
    project: Path,
) -> None:
    model = with_peft(project / "models/base", project / "run/checkpoint-40")
    model.add_adapter("second", lora())
    model.save_pretrained(project / "run/checkpoint-40")
    for adapter in (project / "run/checkpoint-40", project / "run/checkpoint-40/second"):
        name_base(adapter, str(project / "models/base"))
    found, second = checkpoints(project / "run").look(), project / "run/checkpoint-40/second"
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["base", "checkpoint-20", "checkpoint-40"]
    assert found.notes == [
        f"1 checkpoint(s) inside {second.parent} are passed over (second ...): set `checkpoints.path` to {second}, say, to "
        "attribute that one alone"
    ]
    assert names(checkpoints(second)) == [("base", 0), ("second", None)]


def test_the_adapter_that_a_preference_training_compares_with_is_passed_over_and_said(project: Path) -> None:
    for step in (20, 40):
        model = with_peft(project / "models/base", project / f"run/checkpoint-{step}")
        model.add_adapter("ref", lora())
        model.save_pretrained(project / f"run/checkpoint-{step}")
        name_base(project / f"run/checkpoint-{step}", str(project / "models/base"))
    found = checkpoints(project / "run").look()
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["base", "checkpoint-20", "checkpoint-40"]
    assert found.notes == [
        f"{project / 'run/checkpoint-20/ref'} is passed over (2 such): its name says that it is the adapter that a preference "
        "training compares with the one beside it"
    ]
    assert names(checkpoints(project / "run/checkpoint-40")) == [("base", 0), ("checkpoint-40", 40)]


def test_of_a_policy_and_its_reference_the_policy_is_taken(project: Path) -> None:
    for name in ("train", "reference"):
        shutil.copytree(project / "run/checkpoint-20", project / f"inner/{name}")
    shutil.rmtree(project / "run/checkpoint-20")
    (project / "inner").rename(project / "run/checkpoint-20")
    base, first, _ = checkpoints(project / "run").find()
    assert (base.name, first.name, first.path.name) == ("base", "checkpoint-20", "train")


def test_an_adapter_named_reference_that_is_alone_is_a_checkpoint(project: Path) -> None:
    (project / "run/checkpoint-20").rename(project / "run/reference")
    shutil.rmtree(project / "run/checkpoint-40")
    assert names(checkpoints(project / "run")) == [("base", 0), ("reference", None)]


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["q_proj", "embed_tokens"]])
def test_one_of_two_tied_layers_is_merged_alone_as_the_adapter_computes(tmp_path: Path, targets: list[str]) -> None:
    base = write_base(tmp_path / "base", tiny_tokenizer(), tied=True)
    adapter = write_adapter(tmp_path / "checkpoint-20", base, lora(target_modules=targets))
    resource = checkpoints(adapter)
    model = resource.load_model(resource.get("checkpoint-20"), "float32", CPU)
    torch.testing.assert_close(logits(model), logits(with_peft(base, adapter)), rtol=1e-4, atol=1e-4)


def test_embeddings_that_grew_with_the_adapters_tokenizer_are_merged(made: Path, tmp_path: Path) -> None:
    base, tokenizer = made / "models/base", tiny_tokenizer()
    rows = len(tokenizer) + tokenizer.add_tokens(["<call>", "<result>"])
    adapter = write_adapter(tmp_path / "checkpoint-20", base, vocabulary=rows)
    tokenizer.save_pretrained(adapter)
    resource = checkpoints(adapter)
    files = resource.get("checkpoint-20")
    model = resource.load_model(files, "float32", CPU)
    assert model.get_input_embeddings().weight.shape[0] == rows == len(resource.load_tokenizer(files))
    assert resource.skeleton(files).get_input_embeddings().weight.shape[0] == rows
    expected = with_peft(base, adapter, rows).merge_and_unload(safe_merge=True).state_dict()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.items())


NEW_TOKENS: dict[str, dict[str, Any]] = {
    "embeddings and head trained whole": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "embeddings trained whole": {"modules_to_save": ["embed_tokens"]},
    "LoRA on embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "rows of tokens": {"trainable_token_indices": [3, 281]},
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("how", NEW_TOKENS)
def test_new_tokens_that_an_adapter_trained_are_merged_as_peft_computes_them(
    tmp_path: Path, how: str, tied: bool
) -> None:
    base = write_base(tmp_path / "base", tiny_tokenizer(), tied=tied)
    config = lora(**NEW_TOKENS[how])
    adapter = write_adapter(tmp_path / "checkpoint-20", base, config, vocabulary=284)
    resource = checkpoints(adapter)
    files = resource.get("checkpoint-20")
    if how == "LoRA on embeddings" and not tied:
        # peft saves no rows of the head then.
        with pytest.raises(CheckpointError, match="4 more than its base model, but holds no rows of lm_head for them"):
            resource.skeleton(files)
        return
    assert resource.skeleton(files).get_input_embeddings().weight.shape[0] == 284
    model, expected = resource.load_model(files, "float32", CPU), with_peft(base, adapter, 284)
    ids = torch.tensor([[3, 14, 281, 9, 283]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, expected(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_a_kind_that_peft_lays_out_by_the_bases_numbers_is_refused_in_these_words(made: Path, tmp_path: Path) -> None:
    shira = ShiraConfig(task_type="CAUSAL_LM", r=2, target_modules=TARGETS)
    adapter = write_adapter(tmp_path / "checkpoint-20", made / "models/base", shira)
    resource = checkpoints(adapter)
    with pytest.raises(
        CheckpointError, match="of the kind SHIRA, which peft cannot put on a model without its numbers"
    ):
        resource.skeleton(resource.get("checkpoint-20"))


def test_rows_for_new_tokens_that_the_adapter_does_not_hold_are_refused(made: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "checkpoint-20", made / "models/base", vocabulary=282)
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    resource = checkpoints(adapter)
    with pytest.raises(CheckpointError, match="2 more than its base model, but holds no rows of lm_head for them"):
        resource.load_model(resource.get("checkpoint-20"), "float32", CPU)


def test_a_base_in_another_type_is_merged_in_the_wanted_one(project: Path) -> None:
    resource = checkpoints(project / "run")
    files = resource.get("checkpoint-20")
    for wanted in (torch.bfloat16, torch.float64):
        model = resource.load_model(files, str(wanted).removeprefix("torch."), CPU)
        assert {parameter.dtype for parameter in model.parameters()} == {wanted}


def test_an_adapter_over_two_devices_has_the_same_logits(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.modeling.check_device_same", lambda one, other: one.type == other.type)
    resource = checkpoints(project / "run")
    files = resource.get("checkpoint-20")
    whole = resource.load_model(files, "float32", CPU)
    monkeypatch.setattr("lorif_assets.models.device_map.free_bytes", lambda device: 0.9 * whole.get_memory_footprint())
    spread = resource.load_model(files, "float32", DeviceGroup.of("cpu:0", "cpu:1"))
    assert {str(device) for device in spread.hf_device_map.values()} == {"cpu:0", "cpu:1"}
    assert torch.equal(logits(spread), logits(whole))


# --- One base for all adapters ---------------------------------------------------------------------------------------


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that whole models are read from."""
    found: list[str] = []
    load = AutoModelForCausalLM.from_pretrained

    def counted(folder: Path, **options: Any) -> Any:
        found.append(Path(folder).name)
        return load(folder, **options)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", counted)
    return found


def test_the_base_is_read_once_for_all_adapters_of_a_run_and_stays_exact(project: Path, loads: list[str]) -> None:
    resource = checkpoints(project / "run")
    base, first, second = resource.find()
    in_turn = [resource.load_model(files, "float32", CPU) for files in (first, second, base, first)]
    assert loads == ["base"]
    expected: list[PreTrainedModel] = [
        with_peft(project / "models/base", first.path).merge_and_unload(),
        with_peft(project / "models/base", second.path).merge_and_unload(),
        AutoModelForCausalLM.from_pretrained(project / "models/base"),
    ]
    for found, wanted in zip(in_turn, [*expected, expected[0]], strict=True):
        state = found.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in wanted.state_dict().items())


def test_models_on_one_base_share_the_tensors_that_no_adapter_changes(project: Path) -> None:
    resource = checkpoints(project / "run")
    _, first, second = resource.find()
    one, two = (dict(resource.load_model(files, "float32", CPU).named_parameters()) for files in (first, second))
    shared = {name for name in one if one[name].data_ptr() == two[name].data_ptr()}
    assert {name for name in one if any(target in name for target in TARGETS)} == one.keys() - shared


def test_a_base_that_was_written_again_is_read_again(project: Path, loads: list[str]) -> None:
    resource = checkpoints(project / "run")
    resource.load_model(resource.get("checkpoint-20"), "float32", CPU)
    write_base(project / "models/base", tiny_tokenizer(), seed=5)
    again = resource.load_model(resource.get("checkpoint-20"), "float32", CPU)
    assert loads == ["base", "base"]
    expected = with_peft(project / "models/base", project / "run/checkpoint-20").merge_and_unload()
    assert torch.equal(logits(again), logits(expected))


def test_a_whole_model_releases_the_base(project: Path) -> None:
    write_base(project / "run/checkpoint-60", tiny_tokenizer())
    resource = checkpoints(project / "run")
    resource.load_model(resource.get("checkpoint-20"), "float32", CPU)
    assert resource.held.model is not None
    resource.load_model(resource.get("checkpoint-60"), "float32", CPU)
    assert resource.held.model is None


# --- Fingerprints ----------------------------------------------------------------------------------------------------


def flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["run/checkpoint-20/adapter_model.safetensors", "models/base/model.safetensors"])
def test_the_fingerprint_of_an_adapter_covers_its_weights_and_those_of_its_base(project: Path, name: str) -> None:
    resource = checkpoints(project / "run")
    files, tokenizer = resource.get("checkpoint-20"), resource.get("checkpoint-20").tokenizer_hash()
    before = files.weights_hash(), files.version()
    flip_last_byte(project / name)
    assert files.weights_hash() != before[0]
    assert files.version() != before[1]
    assert files.tokenizer_hash() == tokenizer


def test_the_bytes_of_a_base_are_read_once_for_all_hashes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorif_assets.models.files import checkpoint_files

    read: list[str] = []
    hashed = checkpoint_files._hash_files

    def counted(files: list[Path]) -> str:
        read.extend(file.name for file in files)
        return hashed(files)

    monkeypatch.setattr(checkpoint_files, "_hash_files", counted)
    _, first, second = checkpoints(project / "run").find()
    assert first.weights_hash() != second.weights_hash()
    assert (read.count("model.safetensors"), read.count("adapter_model.safetensors")) == (1, 2)


# --- Tokenizers ------------------------------------------------------------------------------------------------------


def test_an_adapter_without_a_tokenizer_has_that_of_its_base(project: Path) -> None:
    resource = checkpoints(project / "run")
    files = resource.get("checkpoint-20")
    assert files.tokenizer_folder == project / "models/base"
    assert len(resource.load_tokenizer(files)) == 280


def test_an_adapters_own_tokenizer_comes_first(project: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    resource = checkpoints(project / "run")
    before = resource.get("checkpoint-20").tokenizer_hash()
    tokenizer.save_pretrained(project / "run/checkpoint-20")
    files = resource.get("checkpoint-20")
    assert files.tokenizer_hash() != before
    assert len(resource.load_tokenizer(files)) == 281


def test_whole_models_without_a_tokenizer_have_that_of_the_base_that_the_settings_name(project: Path) -> None:
    write_base(project / "full/checkpoint-20", tiny_tokenizer())
    for file in (project / "full/checkpoint-20").glob("tokenizer*"):
        file.unlink()
    resource = checkpoints(project / "full", base_model=str(project / "models/base"))
    assert [checkpoint.is_complete() for checkpoint in resource.find()] == [True, True]
    assert len(resource.load_tokenizer(resource.get("checkpoint-20"))) == 280


def test_a_base_without_a_tokenizer_reads_with_that_of_its_adapters(project: Path) -> None:
    for file in (project / "models/base").glob("tokenizer*"):
        file.unlink()
    for step in (20, 40):
        tiny_tokenizer().save_pretrained(project / f"run/checkpoint-{step}")
    found = checkpoints(project / "run").look()
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["base", "checkpoint-20", "checkpoint-40"]
    assert all(checkpoint.is_complete() for checkpoint in found.checkpoints)
    assert not found.notes


def test_a_base_without_a_tokenizer_and_with_no_embedding_for_its_adapters_tokens_is_no_checkpoint(
    project: Path,
) -> None:
    for file in (project / "models/base").glob("tokenizer*"):
        file.unlink()
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<new-{n}>" for n in range(1_000)])
    for step in (20, 40):
        tokenizer.save_pretrained(project / f"run/checkpoint-{step}")
    found = checkpoints(project / "run").look()
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["checkpoint-20", "checkpoint-40"]
    assert all(checkpoint.is_complete() for checkpoint in found.checkpoints)
    assert found.notes == [f"the base model {project / 'models/base'} is no checkpoint of its own: it has no tokenizer"]


# --- The adapter's own matrices --------------------------------------------------------------------------------------


def test_gradients_of_an_adapters_matrices_are_those_of_autograd(project: Path) -> None:
    resource = checkpoints(project / "run")
    files = resource.get("checkpoint-20")
    model = resource.load_model(files, "float64", CPU, "adapter")
    layers = select_layers(model, of_adapter=True)
    assert [layer.name for layer in layers] == [
        f"model.layers.{block}.{target}.lora_{half}.default"
        for block in range(2)
        for target in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
        for half in "AB"
    ]
    labels = IDS.clone()
    whole = Projection(factor=1, seed=0)
    with GradientCollector(model, [layer_projection(layer, whole) for layer in layers]) as collector:
        found = collector.collect(TokenBatch(IDS, torch.ones_like(IDS, dtype=torch.bool), labels))
    reference = with_peft(project / "models/base", files.path).to(torch.float64)
    inner = reference.get_base_model()
    parameters = [inner.get_submodule(layer.name).weight.requires_grad_(True) for layer in layers]
    loss = summed_cross_entropies(inner(input_ids=IDS).logits, next_tokens(labels))
    torch.testing.assert_close(found.losses, loss.detach())
    for layer, gradient in zip(layers, torch.autograd.grad(loss.sum(), parameters), strict=True):
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found.gradients[layer.name][0], gradient.mT, rtol=1e-9, atol=1e-12)


def test_gradients_of_a_doras_matrices_are_those_of_autograd(made: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "checkpoint-20", made / "models/base", lora(use_dora=True))
    resource = checkpoints(adapter)
    model = resource.load_model(resource.get("checkpoint-20"), "float64", CPU, "adapter")
    layers = select_layers(model, of_adapter=True)
    projections = [layer_projection(layer, Projection(factor=1, seed=0)) for layer in layers]
    with GradientCollector(model, projections) as collector:
        found = collector.collect(TokenBatch(IDS, torch.ones_like(IDS, dtype=torch.bool), IDS.clone()))
    parameters = [model.get_submodule(layer.name).weight.requires_grad_(True) for layer in layers]
    loss = summed_cross_entropies(model(input_ids=IDS).logits, next_tokens(IDS)).sum()
    for layer, gradient in zip(layers, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(found.gradients[layer.name][0], gradient.mT, rtol=1e-9, atol=1e-12)


def test_the_skeleton_of_a_tracked_adapter_has_its_matrices(project: Path) -> None:
    resource = checkpoints(project / "run")
    files = resource.get("checkpoint-20")
    skeleton, model = resource.skeleton(files, track="adapter"), resource.load_model(files, "float32", CPU, "adapter")
    assert select_layers(skeleton, of_adapter=True) == select_layers(model, of_adapter=True)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    torch.testing.assert_close(logits(model), logits(resource.load_model(files, "float32", CPU)), rtol=1e-5, atol=1e-5)


def test_matrices_on_parameters_are_refused_as_what_is_tracked(project: Path) -> None:
    name_base(project / "run/checkpoint-20", str(project / "models/base"), target_parameters=["experts.down_proj"])
    resource = checkpoints(project / "run")
    with pytest.raises(
        CheckpointError, match=r"is a LoRA on parameters \(experts\.down_proj\), whose matrices are added"
    ):
        resource.skeleton(resource.get("checkpoint-20"), track="adapter")


def test_an_adapters_matrices_are_tracked_only_when_asked_for(project: Path) -> None:
    resource = checkpoints(project / "run")
    model = resource.load_model(resource.get("checkpoint-20"), "float32", CPU, "adapter")
    assert not any("lora" in layer.name for layer in select_layers(model))


def test_only_lora_has_matrices_to_track(made: Path, project: Path) -> None:
    write_adapter(project / "run/checkpoint-60", project / "models/base", KINDS["IA3"]())
    resource = checkpoints(project / "run")
    for name, message in (("checkpoint-60", "an adapter of the kind IA3"), ("base", "base is a whole model")):
        files = resource.get(name)
        with pytest.raises(CheckpointError, match=message):
            resource.skeleton(files, track="adapter")
        with pytest.raises(CheckpointError, match=message):
            resource.load_model(files, "float32", CPU, "adapter")
