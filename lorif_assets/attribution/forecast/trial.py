"""Attribution tried on a small model of a checkpoint's architecture, before anything is loaded or computed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lorif_assets.errors import LorifError

if TYPE_CHECKING:
    from lorif_assets.mathematics.gradients.layers import TrackedLayer
    from lorif_assets.models.loading.small_copy import SmallCopy

_TOKENS = 6


def try_architecture(small: "SmallCopy", tracked: "Iterable[TrackedLayer]") -> bool:
    """Collect gradients of a small copy in the layers that are tracked, and return whether it could be tried.

    It cannot where the forward pass of a copy that was cut fails, which may be for being cut. The copy has no adapter: in
    place of an adapter's matrices, the layers that they stand beside are tried.

    Raises:
        LayerError: it is no causal language model, or a tracked layer gets no gradient.
        LorifError: the forward pass fails on text alone.
    """
    import torch

    from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
    from lorif_assets.mathematics.gradients.layers import (
        adapted_layer,
        blocks_of_pictures,
        in_any_block,
        linear_weights,
    )
    from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
    from lorif_assets.mathematics.gradients.soundness import refuse_unsound

    kinds = {in_any_block(adapted_layer(layer.name)) for layer in tracked}
    passed_by = blocks_of_pictures(small.model)
    layers = [
        weight.layer
        for name, weight in linear_weights(small.model).items()
        if in_any_block(name) in kinds and not name.startswith(passed_by)
    ]
    narrow = Projection(max_width=1, seed=0)
    try:
        refuse_unsound(small.model)
        n_embedded = len(next(small.model.get_input_embeddings().parameters()))
        ids = torch.arange(2 * _TOKENS).view(2, _TOKENS) % n_embedded
        with GradientCollector(small.model, [layer_projection(layer, narrow) for layer in layers]) as collector:
            collector.collect(TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids))
    except LorifError:
        raise
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if small.is_whole:
            raise LorifError(f"a {type(small.model).__name__} of this kind fails on text alone: {error}") from error
        return False
    return True
