"""Tiny models of the families of causal language models that transformers knows, and their gradients by autograd."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedConfig

from lorif_assets.mathematics.gradients.layers import linear_weights
from lorif_assets.mathematics.gradients.projection import LayerProjection
from lorif_assets.models.loading.model_class import language_model_class
from tests.mathematics.references import Example, dense_projection, token_loss

VOCABULARY = 64
# A family takes those of its own.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), VOCABULARY),
    **dict.fromkeys(
        ("vocab_size_per_layer_input", "encoder_hash_byte_group_vocab", "ngram_vocab_size_base"), VOCABULARY
    ),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("lru_width", "dim", "embedding_dim", "out_hidden_size", "projection_dim", "ple_embed_dim"), 32),
    **dict.fromkeys(("backbone_hidden_size", "text_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "dff", "ffn_dim", "d_ff", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("ffn_hidden_size", "feed_forward_size", "d_inner", "encoder_ffn_dim", "attention_ffn_dim"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 24),
    **dict.fromkeys(("attention_hidden_size", "mamba_d_ssm"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_decoder_layers", "num_encoder_layers", "num_blocks"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "attention_head_size", "qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("v_head_dim", "state_size", "mamba_d_state", "mamba_n_heads", "mamba_d_head", "rotary_dim"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "linear_key_head_dim", "linear_value_head_dim", "d_head"), 8),
    **dict.fromkeys(("global_head_dim", "attention_head_dim", "laurel_rank", "hc_lowrank", "adapter_rank"), 8),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size", "mamba_headdim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "sliding_window", "attention_window", "router_hidden_size"), 16),
    **dict.fromkeys(
        ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "split_ngram_parts"), 4
    ),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "moe_top_k", "mamba_expand", "heads_per_ngram"), 2),
    **dict.fromkeys(("depth", "n_mamba_heads", "index_n_heads"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("mamba_ngroups", "mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("initializer_range", "init_std"), 0.2),
    "num_kv_shared_layers": 0,
    "index_head_dim": 16,
    "image_size": 28,
    "patch_size": 14,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WITH_SECTIONS = (
    "glm46v_text",
    "glm4v_text",
    "glm4v_moe_text",
    "glm_ocr_text",
    "glmga_text",
    "paddleocr_vl_text",
    "qwen2_vl_text",
    "qwen2_5_vl_text",
    "qwen2_5_omni_text",
)
_SECTIONS = {"ernie4_5_vl_moe_text": [1, 1, 2], "hunyuan_vl_text": [1, 1, 1, 1]}
"""Language models that share positions out between time, height and width, even where their defaults do not say so."""
_BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type")
_ENCODERS = (
    "bert",
    "bert-generation",
    "big_bird",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
)
"""Families that are encoders unless told otherwise."""
ENCODER_DECODERS = (
    *("florence2", "pix2struct", "pp_formulanet", "shieldgemma2", "t5gemma2", "udop", "vision-encoder-decoder"),
)
"""Families that read a picture and write text by a decoder that attends to an encoder."""
_PICTURE_TOKENS = {
    **{"embed_dim": 8, "num_embeddings": 16, "base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1},
    **{"resolution": 28, "latent_channels": 8, "num_patches": 2, "projection_dim": 32, "image_token_embed_dim": 32},
}
NO_LANGUAGE_MODELS = ("evolla", "musicgen", "musicgen_melody")
"""Families that stand among those which write text, or codes of sound, and that transformers makes no language model of."""
_ROTATION = {"rope_type": "default", "rope_theta": 1e4}
_COMPASS = {
    "rope_parameters": {"full_attention": _ROTATION, "sliding_attention": _ROTATION},
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
_DOTS3 = {"head_dim": 16, "per_layer_config": {}, "shared_experts_intermediate_size": 24}
_INDEXER = {
    **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8},
    **{"indexer_budget": 16, "indexer_compress_ratio": 4},
}
_SOUNDS = {"depths": [1, 1, 1], "downsampling_ratios": [2, 2], "num_filters": 2, "hidden_size": 8}
_THINKERS = ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "falcon": {"head_dim": None},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "longcat_flash": {"zero_expert_num": 2, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 24, "head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "xlstm": {"v_head_dim": None},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2},
    "zaya": {"num_experts_per_tok": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "qwen2_vl": {"vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}},
    **{family: {"vision_start_token_id": 2, "audio_start_token_id": 2} for family in _THINKERS},
    **{family: {"is_decoder": True} for family in _ENCODERS},
    "xlm": {"causal": True},
    "chameleon": {"vq_config": _PICTURE_TOKENS, "vocabulary_map": {"<image>": 5}},
    "janus": {"vq_config": _PICTURE_TOKENS},
    "molmo2": {
        "adapter_config": {
            **{"vision_feature_layer": [1, 0], "hidden_size": 32, "intermediate_size": 48, "text_hidden_size": 32},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
        }
    },
    "blt": {"encoder_config": {"hidden_size_global": 32}, "decoder_config": {"hidden_size_global": 32}},
    "cohere_compass": {"text_config": _COMPASS},
    "cohere_compass_text": _COMPASS,
    "deepseek_ocr2": {"text_config": {"num_experts_per_tok": 2, "mlp_layer_types": ["dense", "sparse"] * 2}},
    "dots3_note": {
        "text_config": _DOTS3,
        "vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32, "per_layer_config": {}},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "dots3_note_text": _DOTS3,
    "fast_vlm": {"vision_config": {"architecture": "resnet10t"}},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 8}},
    "gemma3n": {"vision_config": {"architecture": "mobilenetv5_base"}},
    "glm5_next": {
        "text_config": {
            **{"qk_rope_head_dim": 0, "qk_head_dim": 8, "head_dim": 0},
            **{"linear_head_dim": 8, "linear_num_heads": 2},
        }
    },
    "granite4_vision": {
        **{"deepstack_layer_map": [[1, 0]], "spatial_target_layers": [1], "downsample_rate": "1/2"},
        "vision_config": {"hidden_size": 64},
    },
    "kyutai_speech_to_text": {"codec_config": {"upsample_groups": 32}},
    "muse_spark": {
        "projector_hidden_size": 32,
        "audio_config": {"hidden_sizes": [8] * 4, "depths": [1] * 4},
        "text_config": {"moe_hidden_size": 32},
    },
    "nemo_speechlm": {
        "audio_config": {
            "asr_config": {"num_key_value_heads": 4},
            "diarization_config": {
                "audio_config": {"num_key_value_heads": 4},
                "head_config": {"audio_hidden_size": 32},
            },
        },
        "word_timestamp_config": {"num_key_value_heads": 4},
        "text_config": {
            **{"mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8},
            **{"moe_shared_expert_intermediate_size": 24},
        },
    },
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}, "vision_hidden_size": 32},
    "perception_lm": {
        "vision_config": {
            "architecture": "vit_pe_core_tiny_patch16_384",
            "model_args": {"embed_dim": 32, "num_heads": 2, "depth": 2},
        }
    },
    "prophetnet": {"num_hidden_layers": None},
    "qwen3_omni_moe": {
        "talker_config": {"spatial_merge_size": 2, "text_config": {"shared_expert_intermediate_size": 24}},
    },
    "qwen4_exp": {"text_config": _INDEXER},
    "qwen4_exp_text": _INDEXER,
    "reformer": {
        **{"is_decoder": True, "attn_layers": ["local", "lsh"] * 2, "num_buckets": 2},
        **{"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [8, 24]},
    },
    "vibevoice_asr": {
        "acoustic_tokenizer_encoder_config": _SOUNDS,
        "semantic_tokenizer_encoder_config": _SOUNDS,
    },
    "xlnet": {"attn_type": "uni", "max_position_embeddings": None},
    "zamba2": {"mamba_expand": 2, "mamba_ngroups": 1, "n_mamba_heads": 8, "mamba_headdim": 8},
}


def tiny_config(family: str, **fields: Any) -> PreTrainedConfig:
    """The configuration of a family with small sizes in all of its parts; of lists with an entry for each layer, all kinds."""
    config_class = CONFIG_MAPPING[family]
    chosen = {**_merged(_small(config_class()), _OF_FAMILY.get(family, {})), **fields}
    made: PreTrainedConfig = config_class(**{name: value for name, value in chosen.items() if value is not None})
    return made


def tiny_model(family: str, **fields: Any) -> nn.Module:
    """A model of a family with random weights; experts by transformers' own loop, which alone computes in FP64."""
    config = tiny_config(family, **fields)
    torch.manual_seed(0)
    model = language_model_class(config).from_config(config)
    model.set_experts_implementation("eager")
    return model.eval()


def _merged(sizes: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return sizes with others in their place, part by part."""
    parts = {
        name: _merged(sizes[name], value) if isinstance(value, dict) and isinstance(sizes.get(name), dict) else value
        for name, value in others.items()
    }
    return {**sizes, **parts}


def _field(config: PreTrainedConfig, name: str) -> Any:
    if isinstance(made := getattr(type(config), name, None), property) and made.fset is None:
        # It follows from others.
        return []
    try:
        return getattr(config, name, [])
    except Exception:
        # One of each layer, of which none is that of all.
        return 1


def _small(default: PreTrainedConfig) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        name: value
        for name, value in _SIZES.items()
        if isinstance(found := _field(default, name), int | float | None) and not isinstance(found, bool)
    }
    depths = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    depth = next((found for name in depths if isinstance(found := _field(default, name), int)), None)
    for name, value in vars(default).items():
        if isinstance(value, list | tuple) and value and (len(value) == depth or name in _BY_LAYER):
            kinds = list({str(kind): kind for kind in value}.values())
            sizes[name] = 48 if name == "intermediate_size" else (kinds * 4)[:4]
        elif (
            name.endswith(("token_id", "token_index")) and name not in _SIZES and isinstance(value, int) and value > 60
        ):
            # A token that no example has.
            sizes[name] = 2
    rope = _field(default, "rope_parameters")
    if isinstance(rope, dict) and ("mrope_section" in rope or default.model_type in (*_WITH_SECTIONS, *_SECTIONS)):
        half = int(4 * float(rope.get("partial_rotary_factor", 1)))
        rest = {name: rope[name] for name in ("partial_rotary_factor", "mrope_interleaved") if name in rope}
        section = _SECTIONS.get(default.model_type, [half - 2, 1, 1])
        sizes["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": section, **rest}
    if "qk_rope_head_dim" in sizes:
        sizes |= {"head_dim": None, "num_key_value_heads": 4}
    for name in getattr(default, "sub_configs", {}):
        if isinstance(part := getattr(default, name, None), PreTrainedConfig):
            inner = {field: value for field, value in _small(part).items() if value is not None}
            sizes[name] = {**inner, **({"model_type": part.model_type} if part.model_type else {})}
    return sizes


def weight_of(model: nn.Module, layer: str) -> nn.Parameter:
    """The parameter that a layer is, or is a part of."""
    return linear_weights(model)[layer].parameter


def autograd_gradients_and_losses(
    model: nn.Module, examples: Sequence[Example], projections: Sequence[LayerProjection]
) -> tuple[dict[str, Tensor], Tensor]:
    """P_in^T (dL/dW) P_out and losses in FP64: each example alone, unpadded, by the model's own forward pass."""
    model = copy.deepcopy(model).double().eval().requires_grad_(False)
    names = [projection.layer.name for projection in projections]
    parameters = {id(p): p.requires_grad_(True) for p in (weight_of(model, name) for name in names)}
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    losses = []
    for ids, labels in examples:
        loss = token_loss(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0], labels)
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradients = dict(zip(parameters, found, strict=True))
        losses.append(loss.detach())
        for projection in projections:
            parameter = weight_of(model, projection.layer.name)
            gradient = gradients[id(parameter)]
            gradient = torch.zeros_like(parameter) if gradient is None else gradient
            p_in, p_out = dense_projection(projection)
            rows[projection.layer.name].append(p_in.T @ _as_input_by_output(model, projection, gradient) @ p_out)
    return {name: torch.stack(of_layer) for name, of_layer in rows.items()}, torch.stack(losses)


def _as_input_by_output(model: nn.Module, projection: LayerProjection, gradient: Tensor) -> Tensor:
    weight, expert = linear_weights(model)[projection.layer.name], projection.layer.expert
    if weight.fused and expert is not None:
        of_expert = weight.fused.of_experts(gradient)[expert]
        return of_expert if weight.fused.is_transposed else of_expert.T
    return gradient if type(weight.module).__name__ == "Conv1D" else gradient.T
