"""Checkpoints of transformers' models that see or hear and write text: read, and tried, as a language model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from lorif_assets.attribution.forecast.trial import try_architecture
from lorif_assets.errors import CheckpointError
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from tests.mathematics.gradients.families import ENCODER_DECODERS, NO_LANGUAGE_MODELS, tiny_config
from tests.mathematics.gradients.test_every_family import NOT_MADE, NOT_SUPPORTED, WITH_TIMM

ALL = {*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, *MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}
FAST = ("llava", "qwen2_5_vl")
# Its whole class takes a map of the tokens that are pictures.
WITH_A_MAP = {"emu3"}
WITHOUT = {*NOT_MADE, *NOT_SUPPORTED, *ENCODER_DECODERS, *NO_LANGUAGE_MODELS, *WITH_A_MAP}
FAMILIES = sorted(ALL - WITHOUT - set(FAST))


def saved(family: str, folder: Path) -> tuple[torch.nn.Module, CheckpointFiles]:
    """A tiny model of the class that a family's checkpoints are of, and its files."""
    config = tiny_config(family)
    sees = type(config) in AutoModelForImageTextToText._model_mapping
    torch.manual_seed(0)
    model = (AutoModelForImageTextToText if sees else AutoModelForMultimodalLM).from_config(config).eval()
    model.save_pretrained(folder)
    return model, CheckpointFiles(folder.name, folder, None)


def check(family: str, folder: Path) -> None:
    if family in WITH_TIMM:
        pytest.importorskip("timm")
    own, files = saved(family, folder / "checkpoint")
    checkpoints = Checkpoints(path=str(folder))
    model = checkpoints.load_model(files, "float32", DeviceGroup.of("cpu"))
    ids = torch.arange(3, 15).view(2, 6)
    with torch.no_grad():
        found, expected = (one(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for one in (model, own))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    layers = select_layers(model)
    assert layers == select_layers(checkpoints.skeleton(files))
    small = checkpoints.small_copy(files)
    assert small is not None
    assert try_architecture(small, layers)


@pytest.mark.parametrize("family", FAST)
def test_a_handful_of_models_that_see_are_read_with_the_weights_of_their_own_class_and_can_be_tried(
    family: str, tmp_path: Path
) -> None:
    check(family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_that_sees_or_hears_is_read_with_the_weights_of_its_own_class_and_can_be_tried(
    family: str, tmp_path: Path
) -> None:
    check(family, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["pix2struct", "udop"])
def test_a_decoder_that_attends_to_an_encoder_is_refused_before_anything_is_read(family: str, tmp_path: Path) -> None:
    _, files = saved(family, tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="not a causal language model that transformers knows"):
        Checkpoints(path=str(tmp_path)).skeleton(files)


@pytest.mark.parametrize("family", NO_LANGUAGE_MODELS)
def test_a_family_that_transformers_makes_no_language_model_of_is_refused_by_its_configuration(
    family: str, tmp_path: Path
) -> None:
    tiny_config(family).save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="not a causal language model that transformers knows") as refusal:
        Checkpoints(path=str(tmp_path)).skeleton(CheckpointFiles("checkpoint", tmp_path / "checkpoint", None))
    assert "should be one of" not in str(refusal.value), "no list of all that transformers knows"
