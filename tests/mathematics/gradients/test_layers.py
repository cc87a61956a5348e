"""Which layers of a model are tracked."""

import pytest
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.pytorch_utils import Conv1D

from lorif_assets.mathematics.gradients.layers import LayerError, TrackedLayer, linear_widths, select_layers


def names(layers: list[TrackedLayer]) -> list[str]:
    return [layer.name for layer in layers]


def test_gpt2s_tracked_layers_are_its_blocks_four_conv1ds_in_model_order(gpt2):
    assert select_layers(gpt2) == [
        TrackedLayer(f"transformer.h.{block}.{name}", d_in, d_out)
        for block in range(2)
        for name, d_in, d_out in (
            ("attn.c_attn", 12, 36),
            ("attn.c_proj", 12, 12),
            ("mlp.c_fc", 12, 20),
            ("mlp.c_proj", 20, 12),
        )
    ]


def test_llamas_tracked_layers_are_its_blocks_linears_with_narrow_keys_and_values(llama):
    assert select_layers(llama) == [
        TrackedLayer(f"model.layers.{block}.{name}", d_in, d_out)
        for block in range(2)
        for name, d_in, d_out in (
            ("self_attn.q_proj", 16, 16),
            ("self_attn.k_proj", 16, 8),
            ("self_attn.v_proj", 16, 8),
            ("self_attn.o_proj", 16, 16),
            ("mlp.gate_proj", 16, 20),
            ("mlp.up_proj", 16, 20),
            ("mlp.down_proj", 20, 16),
        )
    ]


def test_a_linear_head_beside_the_numbered_blocks_is_not_tracked():
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 3)]), "score": nn.Linear(3, 1)})
    assert names(select_layers(model)) == ["layers.0"]


def test_include_patterns_choose_layers_outside_the_blocks_too(gpt2):
    assert names(select_layers(gpt2, include=["lm_head", "*.0.mlp.*"])) == [
        "transformer.h.0.mlp.c_fc",
        "transformer.h.0.mlp.c_proj",
        "lm_head",
    ]


def test_exclude_patterns_take_layers_out_of_the_default_and_of_the_included(llama):
    assert names(select_layers(llama, exclude=["*mlp*", "*.1.*"])) == [
        f"model.layers.0.self_attn.{side}_proj" for side in "qkvo"
    ]
    assert names(select_layers(llama, include=["*.k_proj"], exclude=["*.0.*"])) == ["model.layers.1.self_attn.k_proj"]


def test_patterns_match_case_and_whole_paths(gpt2):
    for pattern in ("*.C_FC", "c_fc"):
        with pytest.raises(LayerError, match="matches none"):
            select_layers(gpt2, include=[pattern])


@pytest.mark.parametrize("patterns", [{"include": ["*.c_attn", "*.q_proj"]}, {"exclude": ["*.q_proj"]}])
def test_a_pattern_that_matches_nothing_is_named_beside_what_layers_are_called(gpt2, patterns):
    with pytest.raises(LayerError, match=r"'\*\.q_proj' matches none.*transformer\.h\.0\.attn\.c_attn"):
        select_layers(gpt2, **patterns)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"include": ["lm_head"], "exclude": ["lm_*"]}, "`exclude` takes out all that `include` names"),
        ({"exclude": ["transformer.*"]}, "the blocks' linear layers are all excluded"),
    ],
)
def test_an_empty_choice_is_refused_with_its_cause(gpt2, patterns, message):
    with pytest.raises(LayerError, match=message):
        select_layers(gpt2, **patterns)


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(LayerError, match="Embedding has no linear layer"):
        select_layers(nn.Embedding(3, 4))


def test_fused_experts_are_tracked_one_by_one_with_their_router():
    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_local_experts=2,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    assert names(select_layers(model))[4:] == [
        f"model.layers.0.mlp.{layer}"
        for layer in (
            "gate",
            "experts.0.gate_up_proj",
            "experts.1.gate_up_proj",
            "experts.0.down_proj",
            "experts.1.down_proj",
        )
    ]
    assert len(select_layers(model, include=["*self_attn*"])) == 4


def test_depthwise_convolutions_are_not_taken_for_fused_experts():
    blocks = nn.ModuleList([nn.ModuleDict({"conv1d": nn.Conv1d(6, 6, 4, groups=6), "out_proj": nn.Linear(6, 6)})])
    assert names(select_layers(blocks)) == ["0.out_proj"]


def test_only_linear_weights_have_widths():
    class Conv1DLookalike(nn.Module):
        pass

    Conv1DLookalike.__name__ = "Conv1D"
    assert linear_widths(nn.Linear(3, 5)) == (3, 5)
    assert linear_widths(Conv1D(5, 3)) == (3, 5)
    assert linear_widths(nn.Conv1d(3, 5, 1)) is None
    assert linear_widths(Conv1DLookalike()) is None
