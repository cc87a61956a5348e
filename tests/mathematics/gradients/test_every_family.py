"""Losses and gradients of transformers' families of causal language models: those of the model's own forward pass, unpadded."""

import copy

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lorif_assets.mathematics.gradients.collector import GradientCollector
from lorif_assets.mathematics.gradients.layers import coverage, select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.gradients.soundness import refuse_unsound
from tests.mathematics.gradients.families import autograd_gradients_and_losses, tiny_model
from tests.mathematics.references import padded_batch

FAST = ("gpt2", "qwen3", "roberta", "ctrl", "mamba", "mixtral", "gpt_oss", "opt")
# Their default configurations do not become tiny models by the fields of `families.py`.
NOT_TINY = {
    "blt",
    "cohere_compass_text",
    "dbrx",
    "dots3_note",
    "dots3_note_text",
    "emu3",
    "falcon_h1",
    "fuyu",
    "gemma3",
    "gemma3n",
    "gemma3n_text",
    "gemma4",
    "gemma4_assistant",
    "gemma4_text",
    "gemma4_unified",
    "gemma4_unified_assistant",
    "gemma4_unified_text",
    "git",
    "got_ocr2",
    "lfm2_moe",
    "llama4",
    "mamba2",
    "mllama",
    "moss_transcribe_diarize",
    "musicgen",
    "musicgen_melody",
    "phi4_multimodal",
    "prophetnet",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen4_exp",
    "qwen4_exp_text",
    "reformer",
    "xlnet",
    "xlstm",
    "xmod",
    "zamba",
    "zamba2",
    "zaya",
    "codegen",
}
# docs/models.md says why.
NOT_SUPPORTED = {"cpmant", "deepseek_v4", "jetmoe"}
# Their own forward pass does not compute in FP64.
NOT_IN_FP64 = {"inkling2_text", "xglm"}
FAMILIES = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - NOT_TINY - NOT_SUPPORTED - NOT_IN_FP64)


def check(family: str, examples) -> None:
    # On a model of its own: a recurrent one keeps a state that cannot be copied.
    refuse_unsound(tiny_model(family))
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
