"""Whether a checkpoint fits the memory that is free, known before it is loaded, and which settings would help."""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe
from lorif_assets.attribution.recipes.gradient_room import gradient_room
from lorif_assets.attribution.recipes.memory import MemoryNeeds, memory_needs, number_bytes
from lorif_assets.attribution.recipes.recipe_on_model import longest_input, tracked_layers
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.free_memory import free_memory
from lorif_assets.models.loading.quantization import stays_quantised

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOG = logging.getLogger(__name__)
_BF16, _FP32 = 2, 4
_PLENTY = 100
"""Free memory, in sizes of the weight files, from which on a checkpoint is loaded without an estimate."""


@dataclass(frozen=True)
class MemoryVerdict:
    """Whether a checkpoint fits a memory, and what would help."""

    needs: MemoryNeeds
    memory: int
    """Bytes that are free."""
    remedies: tuple[str, ...]
    """Settings of which each by itself would make it fit."""

    @property
    def most_tokens(self) -> int | None:
        """The tokens of the largest batch that fits; None if not even one example of the largest length does."""
        return self.needs.most_tokens(self.memory)

    def refuse_shortage(self, checkpoint: str, devices: DeviceGroup) -> None:
        """Refuse a checkpoint of which not even one example fits.

        Raises:
            CheckpointError: with what it takes, what is free and what would help.
        """
        if self.most_tokens is None:
            raise CheckpointError(f"the checkpoint {checkpoint!r} does not fit {devices}: {self.shortage}")

    @property
    def parts(self) -> dict[str, int]:
        """What takes memory in the stage that takes the most, by its name in words."""
        needs = self.needs if self.most_tokens else self.needs.at(self.needs.longest)
        return {
            "weights": needs.weights,
            "projections": needs.projections,
            f"passes over {max(needs.tokens, needs.longest):,} tokens": needs.passes * needs.rows,
            "rows of experts": needs.expert_rows * needs.rows,
            "logits in chunks": needs.logits,
            "K-FAC bases": needs.bases_fit if needs.largest_stage == "K-FAC bases" else needs.bases,
            "gradients": needs.gradients,
        }

    @property
    def shortage(self) -> str:
        """What does not fit, and what would help, in words."""
        needs = self.needs if self.most_tokens else self.needs.at(self.needs.longest)
        listed = ", ".join(f"{what} {in_gib(size)}" for what, size in self.parts.items() if size)
        helps = "; or ".join(self.remedies) or "use a machine or devices with more memory"
        return (
            f"its {needs.largest_stage} would take about {in_gib(needs.total)} GiB of memory ({listed}), but "
            f"{in_gib(self.memory)} GiB are free: {helps}"
        )


def memory_verdict(
    model: "PreTrainedModel",
    recipe: Recipe,
    batch: BatchSettings,
    longest: int,
    memory: int,
    stored_weights: int | None = None,
) -> MemoryVerdict:
    """Hold what a checkpoint takes against the memory that is free.

    Args:
        model: in the type that it is loaded in; its weights may be on the meta device.
        recipe: layers, projection, curvature.
        batch: budgets.
        longest: tokens of the longest example.
        memory: free bytes.
        stored_weights: bytes of the weights where they are quantised.

    Raises:
        LayerError: a layer pattern matches nothing, or a layer cannot be tracked.
    """
    from lorif_assets.mathematics.gradients.pass_memory import bytes_of_passes

    passes = bytes_of_passes(model, longest)
    needs = memory_needs(model, recipe, batch, longest, passes)
    if stored_weights is not None:
        needs = replace(needs, weights=stored_weights)
    remedies = () if needs.total <= memory else tuple(_remedies(model, recipe, batch, needs, passes, memory))
    return MemoryVerdict(needs, memory, remedies)


def checkpoint_verdict(
    checkpoints: Checkpoints, files: CheckpointFiles, recipe: Recipe, batch: BatchSettings, devices: DeviceGroup
) -> MemoryVerdict:
    """Hold what a checkpoint on disk takes against the free memory of some devices; its weights are not read.

    Raises:
        CheckpointError: its configuration is not that of a causal language model.
        LayerError: a layer pattern matches nothing, or a layer cannot be tracked.
    """
    skeleton = checkpoints.skeleton(files, recipe.model_dtype, recipe.track)
    longest = longest_input(skeleton, checkpoints.load_tokenizer(files), recipe)
    # Quantised weights are in memory as they are on disk, whatever the type of the rest.
    stored = _stored_bytes(files) if stays_quantised(files.path, devices) else None
    return memory_verdict(skeleton, recipe, _sized_for(devices, batch), longest, free_memory(devices), stored)


def batch_limit(checkpoints: Checkpoints, files: CheckpointFiles, recipe: Recipe, devices: DeviceGroup) -> int | None:
    """Return the tokens of the largest batch for which memory suffices, or None where a batch of the default size fits.

    Called before the checkpoint is loaded.

    Raises:
        CheckpointError: not even one example of the largest length fits; with what it takes and what would help.
    """
    # What is far smaller than the memory needs no closer look.
    stored = _stored_bytes(files)
    if stored is not None and stored * _PLENTY <= free_memory(devices):
        return None
    verdict = checkpoint_verdict(checkpoints, files, recipe, BatchSettings(), devices)
    verdict.refuse_shortage(files.name, devices)
    tokens = verdict.most_tokens
    if tokens == verdict.needs.tokens:
        return None
    if tokens is not None and tokens < BatchSettings().tokens:
        _LOG.warning(f"batches of {files.name!r} are at most {tokens:,} tokens: {verdict.shortage}")
    return tokens


def _sized_for(devices: DeviceGroup, batch: BatchSettings) -> BatchSettings:
    """Return budgets with numbers in place of what they leave to the device."""
    numbers = gradient_room(batch, devices.first)
    sizes = {"tokens": batch.tokens_on(devices.first), "gradient_mib": max(1, numbers * _FP32 >> 20)}
    return batch.model_copy(update=sizes)


def _stored_bytes(files: CheckpointFiles) -> int | None:
    """Return the bytes of the weight files, of an adapter those of its base model; None while they are not downloaded."""
    weights = files.base.taken_files
    return sum(file.stat().st_size for file in weights) if all(file.is_file() for file in weights) else None


def in_gib(size: int) -> str:
    """Return bytes in GiB."""
    return f"{size / 2**30:,.1f}" if size >= 2**30 / 20 else f"{size / 2**30:,.3f}"


def _remedies(
    model: "PreTrainedModel", recipe: Recipe, batch: BatchSettings, needs: MemoryNeeds, passes: int, memory: int
) -> Iterator[str]:
    """Yield settings that are enough: each by itself where there are such, else all of them at once."""
    if tokens := needs.most_tokens(memory):
        yield f"set `batch.tokens = {tokens}`"
    found = {}
    recipe = fitted_recipe(recipe, tracked_layers(model, recipe))
    for names, changed in _smaller(recipe, needs, is_wide=number_bytes(model) > _BF16).items():
        in_type, length = _in_type_of(model, changed), min(needs.longest, changed.max_length or needs.longest)
        # Nearly in proportion to both, and followed once is enough.
        example = passes * length * number_bytes(in_type) // (needs.longest * number_bytes(model))
        found[names] = memory_needs(in_type, changed, batch, length, example)
    whole = [names for names, of_changed in found.items() if of_changed.total <= memory]
    # Smaller batches cost less than another recipe.
    partly = [] if whole or tokens else [names for names in found if found[names].most_tokens(memory)]
    single = [names for names in (*whole, *partly) if " and " not in names]
    for names in single or (*whole, *partly)[:1]:
        fitting = found[names].most_tokens(memory)
        yield f"set {names}" + (f", with `batch.tokens = {fitting}`" if names in partly else "")


def _smaller(recipe: Recipe, needs: MemoryNeeds, is_wide: bool) -> dict[str, Recipe]:
    """Return recipes that take less, by the settings that make them differ; the last of all of them."""
    changes: dict[str, dict[str, object]] = {}
    if is_wide:
        changes['`recipe.model_dtype = "bfloat16"`'] = {"model_dtype": "bfloat16"}
    if isinstance(recipe.max_width, int):
        width = max(1, recipe.max_width // 4)
        changes[f"`recipe.max_width = {width}`"] = {"max_width": width, "max_factor": None}
    else:
        factor = 4 * recipe.projection_factor
        changes[f"`recipe.projection_factor = {factor}`"] = {"projection_factor": factor}
    length = max(2, needs.longest // 4)
    changes[f"`recipe.max_length = {length}`"] = {"max_length": length}
    together = {field: value for change in changes.values() for field, value in change.items()}
    return {
        names: recipe.model_copy(update=change)
        for names, change in {**changes, " and ".join(changes): together}.items()
    }


def _in_type_of(model: "PreTrainedModel", recipe: Recipe) -> "PreTrainedModel":
    import torch

    if recipe.model_dtype != "bfloat16" or number_bytes(model) <= _BF16:
        return model
    # On the meta device a copy has no memory either.
    return copy.deepcopy(model).to("meta").to(torch.bfloat16)
