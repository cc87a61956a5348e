"""Weights under other names and in other layouts than `model.safetensors`: read, or refused with the way to convert them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.weight_names import unwrapped
from tests.conftest import tiny_tokenizer
from tests.models.tiny_adapters import write_adapter, write_base

CPU = DeviceGroup.of("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("plain") / "checkpoint-20", tiny_tokenizer())


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run/checkpoint-20"))


def files_of(folder: Path) -> CheckpointFiles:
    return CheckpointFiles(folder.name, folder, 20)


def loaded(folder: Path) -> PreTrainedModel:
    return Checkpoints(path=str(folder.parent)).load_model(files_of(folder), "float32", CPU)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_whole(model: PreTrainedModel, expected: dict[str, torch.Tensor]) -> None:
    found = model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_weights_of_a_variant_are_read(folder: Path) -> None:
    expected = weights(folder)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert files_of(folder).fault() is None
    assert_whole(loaded(folder), expected)


def test_of_a_variant_in_several_files_one_that_is_missing_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.fp16-00001-of-00002.safetensors")
    shards = {"a": "model.fp16-00001-of-00002.safetensors", "b": "model.fp16-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.fp16.json").write_text(json.dumps({"weight_map": shards}))
    assert "lacks model.fp16-00002-of-00002.safetensors, one of the 2" in (files_of(folder).fault() or "")


def test_of_two_variants_none_is_taken(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    shutil.copy(folder / "model.fp16.safetensors", folder / "model.bf16.safetensors")
    assert "holds the weights as bf16 and as fp16: keep those of one" in (files_of(folder).fault() or "")


def test_a_variant_beside_plain_weights_is_not_read(folder: Path) -> None:
    expected = weights(folder)
    other = {name: tensor + 1 for name, tensor in expected.items()}
    save_file(other, folder / "model.fp16.safetensors", metadata={"format": "pt"})
    assert_whole(loaded(folder), expected)


def test_weights_of_a_compiled_module_have_the_names_of_the_module_itself(folder: Path) -> None:
    expected = weights(folder)
    wrapped = {f"_orig_mod.{name}": tensor for name, tensor in expected.items()}
    save_file(wrapped, folder / "model.safetensors", metadata={"format": "pt"})
    assert_whole(loaded(folder), expected)


WRAPPERS: dict[str, Callable[[str], str]] = {
    "DistributedDataParallel": lambda name: f"module.{name}",
    "DistributedDataParallel of a compiled module": lambda name: f"module._orig_mod.{name}",
    "a compiled module of DistributedDataParallel": lambda name: f"_orig_mod.module.{name}",
    "a wrapper twice": lambda name: f"module.module.{name}",
    "layers that are compiled, inside of a compiled module": lambda name: (
        "_orig_mod." + name.replace("self_attn.", "_orig_mod.self_attn._orig_mod.")
    ),
    "FSDP, with activation checkpoints": lambda name: (
        "_fsdp_wrapped_module."
        + name.replace("model.layers.0.", "model.layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.")
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_weights_that_were_saved_with_a_wrapper_are_those_of_the_model_inside(folder: Path, wrapper: str) -> None:
    expected = weights(folder)
    wrapped = {WRAPPERS[wrapper](name): tensor for name, tensor in expected.items()}
    save_file(wrapped, folder / "model.safetensors", metadata={"format": "pt"})
    assert_whole(loaded(folder), expected)


def test_an_averaged_model_is_read_as_the_model_inside(folder: Path) -> None:
    expected = weights(folder)
    averaged = {f"module.{name}": tensor for name, tensor in expected.items()}
    save_file({**averaged, "n_averaged": torch.tensor(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert_whole(loaded(folder), expected)


def test_a_weight_that_is_there_with_a_wrapper_s_prefix_and_without_is_refused(folder: Path) -> None:
    plain = weights(folder)
    other = {f"_orig_mod.{name}": tensor + 1 for name, tensor in plain.items()}
    save_file({**plain, **other}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"more than once, under names of a wrapper: _orig_mod\.lm_head\.weight, lm_head"
    ):
        loaded(folder)


def test_names_of_an_unknown_wrapper_are_refused_and_shown(folder: Path) -> None:
    strange = {f"wrapped.{name}": tensor for name, tensor in weights(folder).items()}
    save_file(strange, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"would be random and holds wrapped\.lm_head\.weight instead"):
        loaded(folder)


def test_some_names_that_begin_as_a_wrapper_s_are_the_model_s_own() -> None:
    assert unwrapped(["module.a", "b.module.c"]) == ["module.a", "b.module.c"]
    assert unwrapped(["module.a", "module.module.b"]) == ["a", "module.b"]
    assert unwrapped([]) == []


def test_an_adapter_that_was_saved_with_a_wrapper_is_refused_with_what_to_do(folder: Path) -> None:
    adapter = write_adapter(folder.parent / "checkpoint-40", folder)
    file = adapter / "adapter_model.safetensors"
    wrapped = {
        name.replace("base_model.model.", "base_model.model._orig_mod."): tensor
        for name, tensor in load_file(file).items()
    }
    save_file(wrapped, file, metadata={"format": "pt"})
    checkpoints = Checkpoints(path=str(folder.parent))
    found = next(one for one in checkpoints.find() if one.name == "checkpoint-40")
    with pytest.raises(CheckpointError, match="saved with a wrapper of its model"):
        checkpoints.load_model(found, "float32", CPU)


def _zero(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "global_step20").mkdir()
    (folder / "global_step20/zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"")


def _fsdp(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model_fsdp_0").mkdir()
    (folder / "pytorch_model_fsdp_0/__0_0.distcp").write_bytes(b"")


def _megatron(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "mp_rank_00").mkdir()
    (folder / "mp_rank_00/model_optim_rng.pt").write_bytes(b"")


def _megatron_in_torchs_layout(folder: Path) -> None:
    _torchtitan(folder)
    (folder / "common.pt").write_bytes(b"")


def _torchtitan(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "__0_0.distcp").write_bytes(b"")


def _mistral(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")


LAYOUTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "ZeRO": (_zero, "DeepSpeed's ZeRO shards: join them by `python zero_to_fp32.py . . --safe_serialization`"),
    "FSDP": (_fsdp, "FSDP's shards: join them by `accelerate merge-weights"),
    "Megatron": (_megatron, "Megatron's shards: export them by Megatron Bridge's `AutoBridge.export_ckpt`"),
    "Megatron in torch's layout": (_megatron_in_torchs_layout, "Megatron's shards: export them"),
    "torchtitan": (_torchtitan, "torch's distributed checkpoint"),
    "Mistral": (_mistral, "consolidated.safetensors is in Mistral's own layout"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_in_another_layout_are_refused_with_the_way_to_convert_them(folder: Path, layout: str) -> None:
    change, message = LAYOUTS[layout]
    change(folder)
    (found,) = Checkpoints(path=str(folder.parent)).find()
    assert message in (found.fault() or "")
    with pytest.raises(CheckpointError):
        Checkpoints(path=str(folder.parent)).get("checkpoint-20")


@pytest.mark.parametrize("change", [_zero, _fsdp])
def test_a_step_that_holds_nothing_but_shards_of_training_is_passed_over_in_these_words(
    folder: Path, change: Callable[[Path], Any]
) -> None:
    shutil.copytree(folder, folder.parent / "checkpoint-40")
    change(folder)
    for file in [path for path in folder.iterdir() if path.is_file()]:
        file.unlink()
    found = Checkpoints(path=str(folder.parent)).look()
    assert [checkpoint.name for checkpoint in found.checkpoints] == ["checkpoint-40"]
    assert any(
        f"{folder} is passed over: its weights are in" in note and "join them by" in note for note in found.notes
    )


def test_code_that_a_checkpoint_carries_is_refused_with_the_setting_that_runs_it(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "odd", "auto_map": code}))
    (folder / "odd.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(CheckpointError, match=r"set `checkpoints\.trust_remote_code = true`"):
        Checkpoints(path=str(folder.parent)).skeleton(files_of(folder))


def test_a_tekken_vocabulary_alone_is_a_tokenizer_and_beside_another_one_it_is_not_read(folder: Path) -> None:
    before = files_of(folder).tokenizer_hash()
    (folder / "tekken.json").write_text("{}")
    assert files_of(folder).tokenizer_hash() == before
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert [file.name for file in files_of(folder).tokenizer_files if file.name != "special_tokens_map.json"][-1:] == [
        "tekken.json"
    ]
    assert files_of(folder).fault() is None
