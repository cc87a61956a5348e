"""Of a folder with more weights than a model is loaded from, it is said which are taken and which are not read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from tests.conftest import tiny_tokenizer
from tests.models.tiny_adapters import write_adapter, write_base

CPU = DeviceGroup.of("cpu")
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("plain") / "checkpoint-20", tiny_tokenizer())


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run/checkpoint-20"))


def write_shards(folder: Path, plus: float, names: list[str] = SHARDS) -> None:
    """Write the model's weights, and something more, in shards with an index."""
    weights = {name: tensor + plus for name, tensor in load_file(folder / "model.safetensors").items()}
    parts = [dict(list(weights.items())[k :: len(names)]) for k in range(len(names))]
    for name, part in zip(names, parts, strict=True):
        save_file(part, folder / name, metadata={"format": "pt"})
    index = {weight: name for name, part in zip(names, parts, strict=True) for weight in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def notes(folder: Path) -> list[str]:
    return list(Checkpoints(path=str(folder.parent)).look().notes)


def the_head(folder: Path) -> torch.Tensor:
    files = CheckpointFiles(folder.name, folder, 20)
    return Checkpoints(path=str(folder.parent)).load_model(files, "float32", CPU).lm_head.weight


def test_a_folder_with_the_weights_it_is_loaded_from_has_nothing_to_say(folder: Path) -> None:
    assert notes(folder) == []


def test_pickles_alone_are_not_said_to_lie_beside_others(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert notes(folder) == []


def test_shards_beside_a_whole_file_are_said_not_to_be_read_and_are_not(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")["lm_head.weight"]
    write_shards(folder, plus=1)
    assert notes(folder) == [
        f"{folder} is loaded from model.safetensors; other weights beside are not read: {SHARDS[0]}, {SHARDS[1]}. If these "
        "are the newer ones, remove model.safetensors"
    ]
    assert torch.equal(the_head(folder), whole)


def test_shards_that_the_index_does_not_name_are_said_not_to_be_read(folder: Path) -> None:
    write_shards(folder, plus=1)
    (folder / "model.safetensors").rename(folder / "model-00003-of-00003.safetensors")
    (note,) = notes(folder)
    assert f"loaded from {SHARDS[0]}, {SHARDS[1]}; other weights beside are not read: model-00003-of-00003" in note


def test_the_file_that_a_configuration_names_is_taken(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in weights.items()}, folder / "other.safetensors", metadata={"format": "pt"}
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    assert "is loaded from other.safetensors; other weights beside are not read: model.safetensors" in notes(folder)[0]
    assert torch.equal(the_head(folder), weights["lm_head.weight"] + 1)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "consolidated.00.pth", "consolidated.safetensors", "model.Q8_0.gguf", "tf_model.h5"]
)
def test_weights_for_other_libraries_are_said_not_to_be_read(folder: Path, name: str) -> None:
    weights = folder / "model.safetensors"
    shutil.copy(weights, folder / name)
    (note,) = notes(folder)
    assert f"loaded from model.safetensors; other weights beside are not read: {name}" in note


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "training_args.bin", "scheduler.pt"])
def test_a_trainer_s_own_state_is_no_weights(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"0")
    assert notes(folder) == []


def test_folders_of_one_kind_are_told_of_together(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"0")
    for step in (40, 60):
        shutil.copytree(folder, folder.parent / f"checkpoint-{step}")
    (note,) = notes(folder)
    assert note.startswith(f"{folder} and 2 more are loaded from model.safetensors")


def test_of_an_index_beside_a_whole_file_whose_shards_are_gone_it_is_asked_which_is_the_model(folder: Path) -> None:
    write_shards(folder, plus=1)
    (folder / SHARDS[1]).unlink()
    fault = CheckpointFiles(folder.name, folder, 20).fault()
    assert fault is not None
    assert f"lacks {SHARDS[1]}" in fault
    assert "Or is model.safetensors, which lies beside, the model? Then delete model.safetensors.index.json" in fault


def _pickled(adapter: Path, base: Path) -> None:
    del base
    (adapter / "adapter_model.bin").write_bytes(b"0")


def _whole_without_configuration(adapter: Path, base: Path) -> None:
    shutil.copy(base / "model.safetensors", adapter)


BESIDE_ADAPTERS: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "the adapter in a pickle": (_pickled, "not read: adapter_model.bin."),
    "whole weights": (_whole_without_configuration, "not read: model.safetensors."),
}


@pytest.mark.parametrize("kind", BESIDE_ADAPTERS)
def test_what_lies_beside_an_adapter_is_told(folder: Path, tmp_path: Path, kind: str) -> None:
    add, said = BESIDE_ADAPTERS[kind]
    adapter = write_adapter(tmp_path / "run/checkpoint-40", folder)
    assert not any(str(adapter) in note for note in notes(folder))
    add(adapter, folder)
    assert any(str(adapter) in note and said in note for note in notes(folder))
