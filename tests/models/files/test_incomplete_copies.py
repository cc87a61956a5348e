"""What a copy of a checkpoint may lack, or hold in the place of a file: said before anything is loaded."""

import os
import shutil
from pathlib import Path

import pytest

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
