"""Losses and gradients of transformers' families of causal language models: those of the model's own forward pass, unpadded."""

import copy

import pytest
import torch
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from lorif_assets.mathematics.gradients.collector import GradientCollector
from lorif_assets.mathematics.gradients.layers import LayerError, coverage, linear_weights, select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.gradients.soundness import refuse_unattributable
from tests.mathematics.gradients.families import (
    ENCODER_DECODERS,
    NO_LANGUAGE_MODELS,
    autograd_gradients_and_losses,
    tiny_model,
)
from tests.mathematics.references import padded_batch

FAST = ("gpt2", "qwen3", "roberta", "ctrl", "mamba", "mixtral", "gpt_oss", "opt")
# Drafters all of whose layers read another model's states, which transformers refuses to make.
NOT_MADE = {"gemma4_assistant", "gemma4_unified_assistant"}
NOT_SUPPORTED = {
    "cpmant": "no causal language model",
    "deepseek_v4": "got no gradient",
    "blip": "cannot be run and differentiated on text alone: .*pixel_values",
    "blip-2": "cannot be run and differentiated on text alone: .*pixel_values",
    "idefics": "cannot be run and differentiated on text alone: .*pixel_values",
    "instructblip": "cannot be run and differentiated on text alone: .*pixel_values",
    "instructblipvideo": "cannot be run and differentiated on text alone: .*pixel_values",
    "kosmos-2": "cannot be run and differentiated on text alone: .*pixel_values",
    "voxtral_realtime": "cannot be run and differentiated on text alone: .*input_features",
    "diffusion_gemma": "cannot be run and differentiated on text alone",
    "pi0": "cannot be run and differentiated on text alone: .*state",
    "xmod": "cannot be run and differentiated on text alone: Input language unknown",
    "paligemma": "no causal language model",
    "xlnet": "no causal language model",
    "blt": "its rows are not the batch's tokens",
    "prophetnet": "its rows are not the batch's tokens",
    "kyutai_speech_to_text": "cannot be run and differentiated on text alone: ",
    "qwen2_5_omni": "cannot be run and differentiated on text alone: .*get_input_embeddings",
    "qwen3_omni_moe": "cannot be run and differentiated on text alone: .*get_input_embeddings",
    "reformer": r"cannot be run and differentiated on text alone: .*`model\.train\(\)`",
}
"""What these are refused with; docs/models.md says why."""
# Their own forward pass does not compute in FP64.
NOT_IN_FP64 = {"inkling2", "inkling2_text", "xglm"}
# Their towers are models of timm's.
WITH_TIMM = {"fast_vlm", "gemma3n", "perception_lm"}
FAMILIES = sorted(
    {
        *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        *MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    }
    - NOT_MADE
    - NOT_SUPPORTED.keys()
    - NOT_IN_FP64
    - {*ENCODER_DECODERS, *NO_LANGUAGE_MODELS}
)


def check(family: str, examples) -> None:
    if family in WITH_TIMM:
        pytest.importorskip("timm")
    # On a model of its own: a recurrent one keeps a state that cannot be copied.
    refuse_unattributable(tiny_model(family))
    model = tiny_model(family)
    layers = select_layers(model)
    projections = [layer_projection(layer, Projection(factor=2, seed=7)) for layer in layers]
    expected, losses = autograd_gradients_and_losses(model, examples, projections)
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for side in ("right", "left"):
        with GradientCollector(copy.deepcopy(model).double(), projections) as collector:
            found = collector.collect(padded_batch(examples, 14, side))
        # Some compute norms, routers or recurrences in FP32 whatever the model's type.
        torch.testing.assert_close(found.losses, losses, rtol=1e-5, atol=1e-5)
        for name, gradient in expected.items():
            error = float((found.gradients[name] - gradient).norm())
            assert error < 1e-5 * float(gradient.norm()) + 1e-7 * largest, name
    assert coverage(model, layers).share_of_blocks > 0.5


@pytest.mark.parametrize("family", FAST)
def test_a_handful_of_families_have_the_losses_and_gradients_of_their_own_forward_pass(family, examples):
    check(family, examples)


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in FAST])
def test_every_family_has_the_losses_and_gradients_of_its_own_forward_pass(family, examples):
    check(family, examples)


def attribute(family: str, examples) -> None:
    refuse_unattributable(tiny_model(family))
    model = tiny_model(family)
    narrow = [layer_projection(layer, Projection(max_width=1, seed=7)) for layer in select_layers(model)]
    with GradientCollector(model, narrow) as collector:
        collector.collect(padded_batch(examples, 14, "right"))


@pytest.mark.slow
@pytest.mark.parametrize("family", NOT_SUPPORTED)
def test_what_cannot_be_attributed_is_refused_in_these_words(family, examples):
    with pytest.raises(LayerError, match=NOT_SUPPORTED[family]):
        attribute(family, examples)


@pytest.mark.parametrize("family", ["zamba"])
def test_blocks_that_share_their_weights_are_one_layer_with_the_gradients_of_all(family, examples):
    model = tiny_model(family)
    parameters = [weight.parameter for weight in linear_weights(model).values()]
    assert any(weight.twins for weight in linear_weights(model).values())
    assert len({id(parameter) for parameter in parameters}) == len(parameters)
    check(family, examples)
