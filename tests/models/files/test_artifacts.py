"""Artifacts of MLflow's transformers flavour: which base model an adapter has there, and which tokenizer a model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora.config import KasaConfig
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedConfig,
)

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.artifacts import assembled
from tests.conftest import tiny_tokenizer
from tests.models.tiny_adapters import lora, with_peft, write_adapter, write_base

CPU = DeviceGroup.of("cpu")
SIZES: dict[str, Any] = {
    "vocab_size": 280,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
MODELS: dict[str, tuple[Any, PreTrainedConfig]] = {
    "Llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "Llama with biases": (LlamaForCausalLM, LlamaConfig(**SIZES, attention_bias=True)),
    "Mixtral": (MixtralForCausalLM, MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4)),
}


def base_of(folder: Path, model: str = "Llama") -> Path:
    torch.manual_seed(0)
    kind, config = MODELS[model]
    kind(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def logged(folder: Path, base: Path, adapter: Path) -> Path:
    """Sort a PEFT model into the folders that MLflow keeps it in, where its base model is not on the hub."""
    with_peft(base, adapter).base_model.model.save_pretrained(folder / "model")
    shutil.copytree(adapter, folder / "peft")
    file = folder / "peft/adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "/gone/base"}))
    tiny_tokenizer().save_pretrained(folder / "components/tokenizer")
    return folder


def assembled_in(root: Path, base_model: str | None = None) -> Path:
    home = root / "cache/m-1"
    home.parent.mkdir()
    return assembled(root / "artifact", "m:1", base_model, home).replace(home)


# --- Base models -----------------------------------------------------------------------------------------------------

WRAPPED: dict[str, tuple[str, Callable[[], LoraConfig]]] = {
    "layers": ("Llama", lora),
    "single tokens": ("Llama", lambda: lora(trainable_token_indices=[3, 200])),
    "modules of several layers": ("Llama", lambda: lora(modules_to_save=["mlp"], target_modules=["q_proj"])),
    "two parameters of one module": (
        "Mixtral",
        lambda: lora(
            target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        ),
    ),
    "biases that the model does not have": ("Llama", lambda: lora(bias="all")),
    "biases that are not trained": ("Llama with biases", lora),
}


@pytest.mark.parametrize("what", WRAPPED)
def test_a_base_model_saved_with_an_adapters_layers_inside_is_the_one_that_training_began_with(
    tmp_path: Path, what: str
) -> None:
    model, config = WRAPPED[what]
    base = base_of(tmp_path / "base", model)
    adapter = write_adapter(tmp_path / "adapter", base, config())
    logged(tmp_path / "artifact", base, adapter)
    checkpoints = Checkpoints(path=str(assembled_in(tmp_path)))
    first, last = checkpoints.find()
    assert first.step == 0
    for files, expected in (
        (first, AutoModelForCausalLM.from_pretrained(base)),
        (last, with_peft(base, adapter).merge_and_unload()),
    ):
        found, wanted = checkpoints.load_model(files, "float32", CPU).state_dict(), expected.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


CHANGING: dict[str, tuple[str, Callable[[], LoraConfig], dict[str, Any], str]] = {
    "PiSSA": ("Llama", lambda: lora(init_lora_weights="pissa"), {}, "`init_lora_weights = 'pissa'`"),
    "OLoRA": ("Llama", lambda: lora(init_lora_weights="OLoRA"), {}, "`init_lora_weights = 'OLoRA'`"),
    "LoftQ": ("Llama", lora, {"init_lora_weights": "loftq"}, "`init_lora_weights = 'loftq'`"),
    "KaSA": ("Llama", lambda: lora(kasa_config=KasaConfig()), {}, "`kasa_config`"),
    "biases": ("Llama with biases", lambda: lora(bias="all"), {}, "`bias = 'all'`"),
    "biases of its layers": ("Llama with biases", lambda: lora(bias="lora_only"), {}, "`bias = 'lora_only'`"),
}


@pytest.mark.parametrize("kind", CHANGING)
def test_a_base_model_that_its_adapter_changed_is_not_taken_for_the_one_that_training_began_with(
    tmp_path: Path, kind: str
) -> None:
    model, config, fields, named = CHANGING[kind]
    base = base_of(tmp_path / "base", model)
    adapter = write_adapter(tmp_path / "adapter", base, config())
    artifact = logged(tmp_path / "artifact", base, adapter)
    file = artifact / "peft/adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(CheckpointError) as error:
        assembled(artifact, "m:1", None, tmp_path / "cache/m-1")
    assert str(error.value) == (
        f"the artifact of m:1 holds an adapter with {named}, which changes weights of the base model itself, and the base "
        "model as these changes left it: set `checkpoints.base_model` to the folder, or the name on the hub, of the model that "
        "the training began with"
    )


def test_an_adapter_by_pissa_is_merged_into_the_base_model_that_the_settings_name(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base, lora(init_lora_weights="pissa"))
    logged(tmp_path / "artifact", base, adapter)
    checkpoints = Checkpoints(path=str(assembled_in(tmp_path, str(base))), base_model=str(base))
    found = checkpoints.load_model(checkpoints.get("m-1"), "float32", CPU).state_dict()
    expected = with_peft(base, adapter).merge_and_unload().state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


# --- Tokenizers ------------------------------------------------------------------------------------------------------


def whole_model(root: Path) -> Path:
    """A model in an artifact, without a tokenizer."""
    model = write_base(root / "artifact/model", tiny_tokenizer())
    for file in model.glob("tokenizer*"):
        file.unlink()
    return model


def write_tokenizer(folder: Path, token: str) -> Path:
    """Save a tokenizer that is told from others by its last token, and by its template."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([token])
    tokenizer.chat_template = token
    tokenizer.save_pretrained(folder)
    return folder


def tokenizer_in(folder: Path) -> tuple[str, str | None]:
    checkpoints = Checkpoints(path=str(folder))
    (files,) = checkpoints.find()
    tokenizer = checkpoints.load_tokenizer(files)
    template: str | None = tokenizer.chat_template
    return str(tokenizer.convert_ids_to_tokens(280)), template


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["model", "components/tokenizer", "eval"], "model"),
        (["components/tokenizer", "artifacts/old"], "components/tokenizer"),
        (["later/tokenizer"], "later/tokenizer"),
    ],
)
def test_a_tokenizer_is_the_models_own_else_mlflows_else_the_only_one(
    tmp_path: Path, folders: list[str], expected: str
) -> None:
    whole_model(tmp_path)
    for folder in folders:
        write_tokenizer(tmp_path / "artifact" / folder, f"<{folder}>")
    assert tokenizer_in(assembled_in(tmp_path)) == (f"<{expected}>", f"<{expected}>")


def test_a_tokenizer_is_made_of_one_folders_files_alone(tmp_path: Path) -> None:
    model = whole_model(tmp_path)
    tokenizer = write_tokenizer(tmp_path / "artifact/components/tokenizer", "<new>")
    (tokenizer / "chat_template.jinja").unlink(missing_ok=True)
    others = tmp_path / "artifact/a"
    (others / "additional_chat_templates").mkdir(parents=True)
    for file in (model / "chat_template.jinja", others / "chat_template.jinja"):
        file.write_text("of another one")
    (others / "additional_chat_templates/tools.jinja").write_text("of another one")
    (others / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    (tmp_path / "artifact/data").mkdir()
    (tmp_path / "artifact/data/added_tokens.json").write_text('{"<|x|>": 299}')
    assert tokenizer_in(assembled_in(tmp_path)) == ("<new>", None)


def test_several_tokenizers_of_which_none_is_the_models_are_refused_by_name(tmp_path: Path) -> None:
    whole_model(tmp_path)
    for folder in ("old", "new"):
        write_tokenizer(tmp_path / "artifact" / folder, "<x>")
    with pytest.raises(CheckpointError) as error:
        assembled_in(tmp_path)
    assert str(error.value) == (
        "the artifact of m:1 holds several tokenizers (new, old), and none in the model's folder (model) or in "
        "components/tokenizer: log it with the one that the model was trained with, in the model's folder"
    )


def test_a_vocabulary_of_mistrals_and_the_code_of_a_tokenizer_come_with_it(tmp_path: Path) -> None:
    model = whole_model(tmp_path)
    (model / "configuration_own.py").write_text("of = 'the model'")
    tokenizer = tmp_path / "artifact/components/tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer / "tekken.json").write_text("{}")
    (tokenizer / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["tokenization_own.Own", null]}}')
    for name in ("configuration_own.py", "tokenization_own.py"):
        (tokenizer / name).write_text("of = 'the tokenizer'")
    folder = assembled_in(tmp_path)
    assert [file.name for file in Checkpoints(path=str(folder)).find()[0].tokenizer_files] == [
        "tokenizer_config.json",
        "tekken.json",
    ]
    assert (folder / "configuration_own.py").read_text() == "of = 'the model'"
    assert (folder / "tokenization_own.py").read_text() == "of = 'the tokenizer'"
