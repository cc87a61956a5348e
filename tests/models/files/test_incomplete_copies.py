"""What a copy of a checkpoint may lack, or hold in the place of a file: said before anything is loaded."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from tests.conftest import CHECKPOINTS, TinyProject


@pytest.fixture
def run(tiny_project: TinyProject, tmp_path: Path) -> Path:
    shutil.copytree(tiny_project.root / "checkpoints" / CHECKPOINTS[0], tmp_path / "run/step-1")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "other.safetensors", "tokenizer.json", "trainer_state.json", "code.py"]
)
def test_a_checkpoint_with_a_pipe_is_not_complete_and_says_so(run: Path, name: str) -> None:
    (run / "step-1" / name).unlink(missing_ok=True)
    os.mkfifo(run / "step-1" / name)
    checkpoints = Checkpoints(path=str(run))
    (files,) = checkpoints.look().checkpoints
    assert f"{name} is a pipe, a socket or a device" in (files.fault() or "")
    assert files.version()
    with pytest.raises(CheckpointError, match="is a pipe, a socket or a device"):
        checkpoints.get("step-1")


def test_weight_files_without_their_index_are_no_complete_checkpoint(run: Path) -> None:
    (run / "step-1/model.safetensors").rename(run / "step-1/model-00001-of-00001.safetensors")
    (files,) = Checkpoints(path=str(run)).look().checkpoints
    assert "lacks model.safetensors.index.json, which says in which of its 1 weight files" in (files.fault() or "")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"model_type": "gp', b"\xff\xfe{}"])
def test_half_a_configuration_is_no_complete_checkpoint(run: Path, content: bytes) -> None:
    (run / "step-1/config.json").write_bytes(content)
    (files,) = Checkpoints(path=str(run)).look().checkpoints
    assert "config.json is " in (fault := files.fault() or "")
    assert "still being written" in fault


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_codes_of_which_nothing_says_how_they_become_numbers_are_refused(run: Path, dtype: torch.dtype) -> None:
    folder = run / "step-1"
    tensors = load_file(folder / "model.safetensors")
    matrices = sorted(name for name, tensor in tensors.items() if tensor.ndim > 1 and "wte" not in name)
    coded = {name: tensors[name].mul(100).to(dtype) for name in matrices}
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8)}
    (files,) = Checkpoints(path=str(run)).look().checkpoints
    for plain in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        numbers = {name: tensor.to(plain) for name, tensor in tensors.items()}
        save_file({**numbers, **mask}, folder / "model.safetensors", metadata={"format": "pt"})
        assert files.fault() is None

    save_file({**tensors, **coded, **mask}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    assert files.fault() == (
        f"{folder} holds {matrices[0]} ({len(matrices)} such) in 8 bits or less, and its config.json has no "
        "quantization_config by which such codes become numbers; hf_quant_config.json says it in a form that transformers "
        "does not read. Save the model dequantised, or set `checkpoints.path` to the one that it was quantised from"
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    assert files.fault() is None
