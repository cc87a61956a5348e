"""Gradients of a mixture of experts beside those of a dense model with as many active parameters.

Both models have the same blocks, but for their feed-forward parts: experts of a small width, of which a token reaches a few, or
one whose width is theirs together. Weights and tokens are random. Collected, and dropped, are the projected gradients of all
layers; the bare passes are the same without any layer. Shown are CPU seconds for each billion of active parameters and tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from measurements import interleaved, markdown_table, report, setting_and_output, time_by_kind
from torch import nn

from lorif_assets.config.sections import BatchSettings
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import linear_weights, select_layers, shares_of_tokens
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection

DENSE, EXPERTS = "dense", "experts"
BARE = "bare passes"


@dataclass(frozen=True)
class Setting:
    """Size of the models and of the batch."""

    family: str = field(default="qwen3_moe", metadata={"choices": ("qwen3_moe", "mixtral", "gpt_oss")})
    blocks: int = 2
    width: int = 256
    heads: int = 4
    experts: int = 64
    routed: int = 8
    expert_width: int = 128
    vocabulary: int = 512
    tokens: int = 256
    examples: int = 8
    projection_factor: int = 8
    repeats: int = 5
    threads: int = 1
    profile: bool = False


def models(setting: Setting) -> dict[str, nn.Module]:
    """Return the two models."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shared: dict[str, Any] = {
        "num_hidden_layers": setting.blocks,
        "hidden_size": setting.width,
        "num_attention_heads": setting.heads,
        "num_key_value_heads": setting.heads,
        "head_dim": setting.width // setting.heads,
        "vocab_size": setting.vocabulary,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "layer_types": ["full_attention"] * setting.blocks,
    }
    of_experts = {
        "num_experts": setting.experts,
        "num_local_experts": setting.experts,
        "num_experts_per_tok": setting.routed,
        "moe_intermediate_size": setting.expert_width,
    }
    torch.manual_seed(0)
    dense = CONFIG_MAPPING["qwen3"](**shared, intermediate_size=setting.routed * setting.expert_width)
    mixture = CONFIG_MAPPING[setting.family](**shared, **of_experts, intermediate_size=setting.expert_width)
    return {DENSE: AutoModelForCausalLM.from_config(dense), EXPERTS: AutoModelForCausalLM.from_config(mixture)}


def active_parameters(model: nn.Module) -> float:
    """Return the parameters of the linear layers of the blocks and the head that a token reaches."""
    shares = shares_of_tokens(model)
    return sum(w.layer.d_in * w.layer.d_out * shares[name] for name, w in linear_weights(model).items())


def works(model: nn.Module, setting: Setting) -> dict[str, Callable[[], object]]:
    """Return the bare passes of a model, and the collection of its gradients, over the same batch."""
    ids = torch.randint(
        1, setting.vocabulary, (setting.examples, setting.tokens), generator=torch.Generator().manual_seed(0)
    )
    batch = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids, is_padded_right=True)
    numbers = BatchSettings().gradient_numbers
    projection = Projection(factor=setting.projection_factor, seed=0)
    projections = [layer_projection(layer, projection) for layer in select_layers(model)]

    def passes(chosen: list[Any]) -> None:
        with GradientCollector(model, chosen) as collector:
            collector.stream(batch, _forget, numbers)

    return {BARE: lambda: passes([]), "gradients": lambda: passes(projections)}


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Time both models in turn, and return a row for each."""
    torch.set_num_threads(setting.threads)
    made = models(setting)
    all_works = {
        f"{name}: {work}": call for name, model in made.items() for work, call in works(model, setting).items()
    }
    if setting.profile:
        print(time_by_kind(torch.device("cpu"), all_works[f"{EXPERTS}: gradients"], 30))
    taken = interleaved(all_works, setting.repeats)
    rows = []
    for name, model in made.items():
        size = active_parameters(model)
        seconds = {work: taken[f"{name}: {work}"].cpu for work in (BARE, "gradients")}
        billions = size * setting.examples * setting.tokens / 1e9
        rows.append(
            {
                "model": name,
                "active": size,
                "bare_s": seconds[BARE],
                "gradients_s": seconds["gradients"],
                "bare_per_billion": seconds[BARE] / billions,
                "per_billion": seconds["gradients"] / billions,
            }
        )
    for row in rows:
        row["ratio"] = row["per_billion"] / rows[0]["per_billion"]
        row["bare_ratio"] = row["bare_per_billion"] / rows[0]["bare_per_billion"]
    return rows


def _forget(_layer: str, _rows: slice, _gradients: torch.Tensor) -> None:
    return None


COLUMNS = {
    "model": "{model}",
    "active parameters": "{active:,.0f}",
    "bare passes, CPU s": "{bare_s:.3f}",
    "gradients, CPU s": "{gradients_s:.3f}",
    "bare passes per active parameter": "{bare_ratio:.2f}",
    "gradients per active parameter": "{ratio:.2f}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "experts")
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
