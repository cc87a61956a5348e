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
from lorif_assets.models.checkpoint_files import CheckpointFiles
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import tiny_tokenizer
from tests.models.tiny_adapters import write_base

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


def _zero(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "global_step20").mkdir()
    (folder / "global_step20/zero_pp_rank_0_mp_rank_00_model_states.pt").write_bytes(b"")


def _fsdp(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model_fsdp_0").mkdir()
    (folder / "pytorch_model_fsdp_0/__0_0.distcp").write_bytes(b"")


def _mistral(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")


LAYOUTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "ZeRO": (_zero, "DeepSpeed's ZeRO shards: join them by `python zero_to_fp32.py . . --safe_serialization`"),
    "FSDP": (_fsdp, "FSDP's shards: join them by `accelerate merge-weights"),
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
