"""Which examples a checkpoint gives no finite loss or gradients for: one of them would spoil every sum over examples."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from lorif_assets.data.rows.rejected import RejectedRow
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import LorifError

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.checkpoints.model import AttributedModel
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.mathematics.gradients.layer_calls import TokenCalls

NOT_FINITE = "the loss or a gradient is not finite"
"""The reason of a row that is set aside for it."""
_SHOWN_TOKENS = 40


class NotFiniteError(LorifError):
    """Activations or gradients that were summed over examples are not finite."""


def not_finite(attributed: "AttributedModel", layer: str, fault: str) -> NotFiniteError:
    """Return the error that says of a layer whose sums are not finite what is wrong with it, and what to try."""
    return NotFiniteError(
        f"the layer {layer!r} of checkpoint {attributed.record.name!r} gives no K-FAC bases: {fault}. Are the "
        'checkpoint\'s weights finite? With `recipe.model_dtype = "bfloat16"` or "as_saved", try "float32"'
    )


def set_aside(attributed: "AttributedModel", example: TokenizedExample) -> RejectedRow:
    """Return an example as one that is set aside because its loss or a gradient is not finite."""
    return RejectedRow(
        example.example_id,
        example.row,
        NOT_FINITE,
        attributed.tokenizer.decode(example.input_ids[:_SHOWN_TOKENS]),
    )


def unsound_positions(
    attributed: "AttributedModel", examples: Sequence[TokenizedExample], batch: "BatchSettings"
) -> list[int]:
    """Return the positions of examples whose loss, activations or gradients in a tracked layer are not finite.

    It takes two passes over the examples, and two more over each example of a batch that is not sound: to be called
    where a sum has shown that there is one.
    """
    batches = attributed.batches(examples, batch.tokens)
    suspects = chain.from_iterable(one for one in batches if not _is_sound(attributed, examples, one, batch))
    return sorted(position for position in suspects if not _is_sound(attributed, examples, [position], batch))


def _is_sound(
    attributed: "AttributedModel",
    examples: Sequence[TokenizedExample],
    positions: Sequence[int],
    batch: "BatchSettings",
) -> bool:
    """Whether all that is summed of some examples is finite: by themselves, or squared over a batch."""
    import torch

    found: list[torch.Tensor] = []

    def observer(layer: str, calls: "TokenCalls") -> None:
        del layer
        found.extend(side.float().square().sum().isfinite() for call in calls for side in call)

    def sink(layer: str, rows: slice, gradients: "torch.Tensor") -> None:
        del layer, rows
        found.append(gradients.square().sum().isfinite())

    recipe, tokens = attributed.recipe, attributed.batch(examples, positions)
    drawn = (
        torch.Generator(attributed.device).manual_seed(recipe.seed % 2**63) if recipe.kfac_labels == "model" else None
    )
    with attributed.collector() as collector:
        losses = (collector.observe(tokens, observer, drawn), collector.stream(tokens, sink, batch.gradient_numbers))
    return bool(torch.stack([*found, *(of_pass.isfinite().all() for of_pass in losses)]).all())
