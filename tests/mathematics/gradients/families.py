"""Tiny models of the families of causal language models that transformers knows, and their gradients by autograd."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from lorif_assets.mathematics.gradients.layers import linear_weights
from lorif_assets.mathematics.gradients.projection import LayerProjection
from tests.mathematics.references import Example, dense_projection, token_loss

VOCABULARY = 64
# A family takes those of its own.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("lru_width", "dim"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "dff", "ffn_dim", "d_ff", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 24),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "attention_head_size", "qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("v_head_dim", "state_size", "mamba_d_state", "mamba_n_heads", "mamba_d_head", "rotary_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "sliding_window", "attention_window"), 16),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "mamba_expand"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("initializer_range", "init_std"), 0.2),
    "index_n_heads": 2,
    "index_head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
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
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "falcon": {"head_dim": None},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "longcat_flash": {"zero_expert_num": 2, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 24, "head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "xlstm": {"v_head_dim": None},
    **{family: {"is_decoder": True} for family in _ENCODERS},
    "xlm": {"causal": True},
}


def tiny_model(family: str, **fields: Any) -> nn.Module:
    """A model of a family with random weights; experts by transformers' own loop, which alone computes in FP64."""
    config_class = CONFIG_MAPPING[family]
    default = config_class()
    sizes = {
        name: value for name, value in _SIZES.items() if isinstance(getattr(default, name, []), int | float | None)
    }
    if "qk_rope_head_dim" in sizes:
        sizes |= {"head_dim": None, "num_key_value_heads": 4}
    chosen = {**sizes, **_OF_FAMILY.get(family, {}), **fields}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_class(**{k: v for k, v in chosen.items() if v is not None}))
    model.set_experts_implementation("eager")
    return model.eval()


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
