"""Scores by token beside scoring the same pairs from uncompressed gradients.

A model of GPT-2's shape with random weights, and random words; queries are as long as `query_tokens`. Timed in turn, with no
lake: `re-scored` takes the gradients of the listed examples and their products with preconditioned queries; `by token` also
gives the shares of every token of both sides.
"""

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from measurements import interleaved, markdown_table, report, setting_and_output
from transformers import GPT2Config, GPT2LMHeadModel

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.pairs.token_shares import token_shares
from lorif_assets.attribution.queries.query_gradients import stream_query_gradients
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.models.devices import DeviceGroup

VOCABULARY = 8_192


@dataclass(frozen=True)
class Setting:
    """Size of the model and of the pairs; `factor` is that of the projection, 1 for whole gradients."""

    blocks: int = 4
    width: int = 256
    examples: int = 16
    tokens: int = 256
    query_tokens: int = 32
    factor: int = 8
    repeats: int = 5
    threads: int = 1


class _Scaled:
    """An inverse curvature that costs nothing."""

    norm_weight = 1.0

    def inverse(self, gradients: torch.Tensor) -> torch.Tensor:
        """Return half of the gradients."""
        return gradients / 2

    apply = inverse


def measured(setting: Setting) -> dict[str, Any]:
    """Return the seconds that both take of the processor, and their ratio."""
    torch.manual_seed(0)
    torch.set_num_threads(setting.threads)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=setting.tokens,
            n_embd=setting.width,
            n_layer=setting.blocks,
            n_head=max(1, setting.width // 64),
        )
    ).eval()
    recipe = Recipe(projection_factor=setting.factor)
    record = CheckpointRecord("random", "", "", "gpt2", model.num_parameters(), None, {})
    group = DeviceGroup((torch.device("cpu"),))
    attributed = AttributedModel(record, recipe, model, None, (), "", group).under(recipe)  # type: ignore[arg-type]
    draw = random.Random(0)
    query, *examples = (
        _example(draw, length) for length in (setting.query_tokens, *[setting.tokens] * setting.examples)
    )
    batch, inverse = BatchSettings(), lambda _layer: _Scaled()

    def re_scored() -> None:
        direction: dict[str, torch.Tensor] = {}
        stream_query_gradients(
            attributed, [query], lambda layer, _, found: direction.update({layer: inverse(layer).apply(found)}), batch
        )
        for _, found in attributed.gradients(examples, batch.tokens):
            for layer, gradients in found.gradients.items():
                (gradients.flatten(1) @ direction[layer].flatten()).sum()

    def by_token() -> None:
        list(token_shares(attributed, inverse, query, examples, batch))  # type: ignore[arg-type]

    seconds = interleaved({"re-scored": re_scored, "by token": by_token}, setting.repeats)
    slow, fast = seconds["by token"].cpu, seconds["re-scored"].cpu
    return {"factor": setting.factor, "re_scored": fast, "by_token": slow, "ratio": slow / fast}


def _example(draw: random.Random, length: int) -> TokenizedExample:
    ids = np.array([draw.randrange(VOCABULARY) for _ in range(length)], dtype=np.int64)
    return TokenizedExample("example", 0, ids, ids)


COLUMNS = {
    "factor": "{factor}",
    "re-scored, s": "{re_scored:.2f}",
    "by token, s": "{by_token:.2f}",
    "by token / re-scored": "{ratio:.2f}",
}


def main() -> None:
    """Measure both at the setting's projection and without one, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "token_scores")
    rows = [measured(replace(setting, factor=factor)) for factor in dict.fromkeys((setting.factor, 1))]
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
