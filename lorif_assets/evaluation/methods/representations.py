"""Similarity of the model's own representations."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

    from lorif_assets.data.tokens.tokenization import TokenizedExample

_FP32_BYTES = 4


def representation_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by the cosine of mean-pooled hidden states of the last layer."""
    started = time.monotonic()
    examples = mean_hidden_states(inputs, inputs.examples.tokenized)
    embedded = time.monotonic()
    scores = mean_hidden_states(inputs, inputs.queries.tokenized) @ examples.mT
    return {
        "representation": MethodScores(
            scores.numpy(), examples.shape[1] * _FP32_BYTES, embedded - started, time.monotonic() - embedded
        )
    }


def mean_hidden_states(
    inputs: MethodInputs, examples: "Sequence[TokenizedExample]"
) -> "Float[torch.Tensor, 'n width']":
    """Return the last hidden states, averaged over an example's tokens, with unit norm."""
    import torch

    from lorif_assets.mathematics.gradients.batching import pad_right, token_budget_batches

    attributed = inputs.attributed
    pooled: list[torch.Tensor] = [torch.empty(0)] * len(examples)
    lengths = [len(example.input_ids) for example in examples]
    with torch.inference_mode():
        for positions in token_budget_batches(lengths, inputs.settings.batch.tokens):
            batch = pad_right([examples[i].input_ids for i in positions], [examples[i].labels for i in positions])
            batch = batch.to(attributed.device)
            output = attributed.model(**batch.model_inputs, output_hidden_states=True)
            mask = batch.attention_mask.unsqueeze(2)
            states = output.hidden_states[-1].float() * mask
            for position, state in zip(positions, (states.sum(1) / mask.sum(1)).cpu(), strict=True):
                pooled[position] = state
    return torch.nn.functional.normalize(torch.stack(pooled), dim=1)
