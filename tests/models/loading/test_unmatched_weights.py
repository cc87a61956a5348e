"""Weights that a model of the configuration has no place for: a layer of them is refused, and others are told."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.loading.unmatched_weights import layers_left_out
from tests.conftest import CHECKPOINTS, TinyProject
from tests.models.test_checkpoints import edit_json


@pytest.fixture
def folder(tiny_project: TinyProject, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_project.root / "checkpoints" / CHECKPOINTS[0], tmp_path / "step-1"))


def load(folder: Path) -> None:
    Checkpoints(path=str(folder)).load_model(CheckpointFiles("step-1", folder, 1), "as_saved", DeviceGroup.of("cpu"))


def test_a_configuration_with_fewer_layers_than_the_weights_have_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", n_layer=1)
    with pytest.raises(
        CheckpointError, match=r"more layers than its config.json says \(transformer\.h\.1\.attn.* 11 such\)"
    ):
        load(folder)


def test_other_weights_that_the_model_does_not_have_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = {**load_file(folder / "model.safetensors"), "value_head.weight": torch.ones(2)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert "holds 1 weight(s) that the model of its config.json does not have" in caplog.text
    assert "value_head.weight" in caplog.text


def test_a_layer_is_a_weight_that_differs_from_one_of_the_model_by_numbers_alone() -> None:
    own = ["model.layers.0.mlp.weight", "lm_head.weight"]
    unexpected = ["model.layers.7.mlp.weight", "model.layers.7.rotary.inv_freq", "mtp.0.mlp.weight", "head.weight"]
    assert layers_left_out(unexpected, own) == ["model.layers.7.mlp.weight"]
