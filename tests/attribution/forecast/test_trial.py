"""A trial of an architecture, on a small copy without the checkpoint's adapter."""

import pytest

from lorif_assets.attribution.forecast.trial import try_architecture
from lorif_assets.errors import LorifError
from lorif_assets.mathematics.gradients.layers import LayerError, TrackedLayer, select_layers
from lorif_assets.models.loading.small_copy import SmallCopy
from tests.mathematics.gradients.families import tiny_model


def test_in_place_of_an_adapters_matrices_the_layers_that_they_stand_beside_are_tried() -> None:
    # A text alone does not reach the attention to an encoder.
    small = SmallCopy(tiny_model("bart"), is_whole=True)
    reached = [TrackedLayer(f"{layer.name}.lora_A.default", layer.d_in, 2) for layer in select_layers(small.model)]
    assert try_architecture(small, reached)
    unreached = TrackedLayer("model.decoder.layers.0.encoder_attn.q_proj.lora_A.default", 32, 2)
    with pytest.raises(LayerError, match=r"encoder_attn\.q_proj' got no gradient"):
        try_architecture(small, [*reached, unreached])


def test_a_model_that_has_no_gradients_where_nothing_is_trained_is_refused_in_a_sentence() -> None:
    small = SmallCopy(tiny_model("reformer"), is_whole=True)
    with pytest.raises(
        LorifError, match=r"a ReformerModelWithLMHead of this kind fails on text alone: .*`model\.train\(\)`"
    ):
        try_architecture(small, select_layers(small.model))
