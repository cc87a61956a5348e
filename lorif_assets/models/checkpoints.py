"""Checkpoints on disk: finding and loading causal language models, adapters on them, and their tokenizers, safely."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.config.limits import CheckpointLimits
from lorif_assets.errors import CheckpointError
from lorif_assets.hub.snapshots import asked_once
from lorif_assets.lake.partition_names import partition_name, partition_names
from lorif_assets.models.device_map import spread_over
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.adapter_files import base_folder
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, list_folders
from lorif_assets.models.files.descriptions import (
    refuse_large,
    refuse_many_layers,
    refused_in_words,
)
from lorif_assets.models.files.fine_tunes import tokenizer_of, trained_from
from lorif_assets.models.files.gguf import gguf_loading, named_file
from lorif_assets.models.files.quantised_weights import quantization
from lorif_assets.models.files.tokenizer_files import has_tokenizer
from lorif_assets.models.files.unread_weights import unread_notes
from lorif_assets.models.files.weight_files import saved_type
from lorif_assets.models.files.weight_names import loading_by_name
from lorif_assets.models.loading.adapted_model import adapted_model, adapted_skeleton, sharing_copy
from lorif_assets.models.loading.fitted_adapter import Track
from lorif_assets.models.loading.generation import without_unsound_generation
from lorif_assets.models.loading.model_class import language_model_class, refuse_other_task
from lorif_assets.models.loading.quantization import (
    dequantised,
    device_map_of,
    for_gradients,
    refuse_unsupported_quantization,
    with_gradients,
)
from lorif_assets.models.loading.small_copy import SmallCopy, small_copy
from lorif_assets.models.loading.tokenizer import load_tokenizer
from lorif_assets.models.loading.unmatched_weights import refuse_other_shapes, refuse_unmatched
from lorif_assets.scratch_folders import scratch_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

NAME_PUNCTUATION = "._@:+=-"
"""What names of checkpoints hold beside letters and digits."""


@dataclass(frozen=True)
class Found:
    """The checkpoints in order of step and name, and what was passed over, in words; `same` holds links and copies by name."""

    checkpoints: Sequence[CheckpointFiles]
    notes: Sequence[str]
    same: Mapping[str, str] = field(default_factory=dict)


@dataclass
class HeldBase:
    """The base model that was loaded last, on the CPU: the adapters on it share its tensors."""

    key: tuple[str, ...] | None = None
    model: "PreTrainedModel | None" = None

    def shared(self, key: tuple[str, ...], load: "Callable[[], PreTrainedModel]") -> "PreTrainedModel":
        """Return the base model of a key, loaded now if another one is held."""
        if self.model is None or self.key != key:
            self.release()
            self.key, self.model = key, load()
        return self.model

    def release(self) -> None:
        """Leave the memory to other models."""
        self.key = self.model = None

    def __reduce__(self) -> "tuple[type[HeldBase], tuple[()]]":
        # Each process loads its own.
        return type(self), ()


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The place where a trainer writes its checkpoints: a checkpoint directory, or a directory of them.

    `trust_remote_code` runs Python code that a checkpoint carries. The base model is that of all adapters, and of all
    whole models that were trained from it; by default each adapter's own. With `include_base` it is a checkpoint too.
    """

    path: str
    trust_remote_code: bool = False
    base_model: str | None = None
    include_base: bool = True
    limits: CheckpointLimits = field(default_factory=CheckpointLimits)
    held: HeldBase = field(default_factory=HeldBase, repr=False, compare=False)

    def find(self) -> Sequence[CheckpointFiles]:
        """Return the checkpoints in order of step, then name, as `look` finds them."""
        return self.look().checkpoints

    @asked_once()
    def complete(self) -> Sequence[CheckpointFiles]:
        """Return the checkpoints that could be loaded now, in order; none where there is no checkpoint directory."""
        try:
            return [checkpoint for checkpoint in self.find() if checkpoint.is_complete()]
        except CheckpointError:
            return []

    @asked_once()
    def newest_complete(self) -> CheckpointFiles | None:
        """Return the last checkpoint that could be loaded now, if there is one; what describes it is at its path.

        Raises:
            CheckpointError: the path does not exist, or a download fails.
        """
        found = next((checkpoint for checkpoint in reversed(self.find()) if checkpoint.is_complete()), None)
        if found:
            found.check_description()
        return found

    @asked_once()
    def look(self) -> Found:
        """Return the checkpoints in order, each adapter's base model as step 0 before it, and what was passed over.

        In a directory of checkpoints, folders without configuration and weights are skipped, and so are those whose names
        say that they are hidden or still being written (`.x`, `_x`, `tmp-x`, `x.tmp`). Beside the checkpoints, a trainer's
        directory may hold the model that was saved at the end, which is the last one.

        Raises:
            CheckpointError: the path or the base model of the settings does not exist.
        """
        found = self._with_bases(self._listed())
        return Found(found.checkpoints, [*found.notes, *unread_notes(found.checkpoints)], found.same)

    def _listed(self) -> Found:
        root = Path(self.path)
        if not root.is_dir():
            raise CheckpointError(f"the checkpoint directory {root} does not exist; correct `checkpoints.path`")
        try:
            listing = list_folders(root, Path(self.base_model) if self.base_model else None)
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint directory {root} cannot be read now: {error}. Did a trainer remove a folder meanwhile? Then "
                "look again; else allow this user to read it"
            ) from error
        names = partition_names({folder.path: (folder.name, "") for folder in listing.folders}, NAME_PUNCTUATION)
        found = [
            CheckpointFiles(
                names[folder.path], folder.path, folder.step, self.base_model, "end" if folder.is_last else "step"
            )
            for folder in listing.folders
        ]
        return Found(found, listing.notes, listing.same)

    def _with_bases(self, listed: Found) -> Found:
        found = listed.checkpoints
        names = {checkpoint.path.resolve(): checkpoint.name for checkpoint in found if not checkpoint.adapter}
        taken = {checkpoint.name for checkpoint in found}
        bases: dict[Path, CheckpointFiles] = {}
        for folder in self._base_folders(found):
            name = names.get(folder) or _base_name(folder, taken)
            taken.add(name)
            bases[folder] = CheckpointFiles(
                name, folder, 0, place="base", read_as=tokenizer_of(folder, trained_from(folder, self.in_order(found)))
            )
        offered = [base for base in bases.values() if self.include_base and has_tokenizer(base.tokenizer_folder)]
        others = [checkpoint for checkpoint in found if checkpoint.adapter or checkpoint.path.resolve() not in bases]
        left_out = [
            f"the base model {base.path} is no checkpoint of its own: it has no tokenizer"
            for base in bases.values()
            if self.include_base and base not in offered
        ]
        return Found(self.in_order([*offered, *others]), [*listed.notes, *left_out], listed.same)

    def _base_folders(self, found: Sequence[CheckpointFiles]) -> Sequence[Path]:
        if self.base_model is not None:
            return [base_folder(self.base_model, None, None)]
        folders: dict[Path, None] = {}
        for checkpoint in found:
            # An adapter without its base model is not complete, which says why.
            with suppress(CheckpointError):
                if checkpoint.adapter:
                    folders[checkpoint.adapter.base()] = None
        return list(folders)

    @property
    def location(self) -> str:
        """Where checkpoints are looked for, in words."""
        return self.path

    @staticmethod
    def in_order(checkpoints: Sequence[CheckpointFiles]) -> list[CheckpointFiles]:
        """Return checkpoints in order: base models, those without a step, then by step and name; a trainer's last one last."""
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.order)

    def get(self, name: str) -> CheckpointFiles:
        """Return one checkpoint, checked.

        Raises:
            CheckpointError: it does not exist, or cannot be loaded safely.
        """
        found = {checkpoint.name: checkpoint for checkpoint in self.find()}
        if name not in found:
            raise CheckpointError(
                f"there is no checkpoint {name!r} in {self.location}; found {', '.join(found) or 'none'}. Was it moved away?"
            )
        found[name].check()
        return found[name]

    def load_model(
        self, files: CheckpointFiles, dtype: str, devices: DeviceGroup, track: Track = "weights"
    ) -> "PreTrainedModel":
        """Return the causal language model in eval mode, spread over devices where there are several.

        An adapter's base model is kept on the CPU for the adapters that follow; they share its tensors there.

        Args:
            files: the checkpoint.
            dtype: a torch floating type's name, or `as_saved`.
            devices: where to put it; it takes and returns tensors on the first.
            track: whether an adapter is merged into the weights, or stays beside them as modules of its own.

        Raises:
            CheckpointError: transformers or peft cannot load it, weights are missing from its files, there is no adapter
                to track, or memory does not suffice.
        """
        _require(track, files)
        key = (str(files.base.path), files.base.version(), dtype)
        if not files.adapter and self.held.key != key:
            self.held.release()
            return self._loaded(files, dtype, devices)
        base = self.held.shared(key, lambda: self._dense(files.base, dtype))
        if not files.adapter:
            return self._placed(sharing_copy(base), files, dtype, devices)
        skeleton = self.skeleton(files.base, dtype)
        with refused_in_words(f"peft cannot put the adapter {files.path} on its base model"):
            model = adapted_model(base, skeleton, files.path, track)
        return self._placed(model, files, dtype, devices)

    def _dense(self, base: CheckpointFiles, dtype: str) -> "PreTrainedModel":
        """Return an adapter's base model on the CPU, dequantised: the adapter was trained beside such weights."""
        return dequantised(self._loaded(base, dtype, DeviceGroup.of("cpu")), base.path)

    def _placed(
        self, model: "PreTrainedModel", files: CheckpointFiles, dtype: str, devices: DeviceGroup
    ) -> "PreTrainedModel":
        """Return a model of the CPU on its devices."""
        if len(devices) == 1:
            return model.to(devices.first)
        from accelerate import dispatch_model

        gc.collect()
        device_map = spread_over(self.skeleton(files.base, dtype), devices, files.path)
        return dispatch_model(model, device_map=device_map, skip_keys=model._skip_keys_device_placement)

    def _loaded(self, files: CheckpointFiles, dtype: str, devices: DeviceGroup) -> "PreTrainedModel":
        """Return a whole model, read from its files."""
        from transformers.utils import logging

        refuse_unsupported_quantization(files.path, devices)
        logging.disable_progress_bar()
        if len(devices) > 1:
            # accelerate leaves reference cycles in the models it spreads: a model that nobody uses still has its memory.
            gc.collect()
        spread = spread_over(self.skeleton(files, dtype), devices, files.path) if len(devices) > 1 else None
        if spread is None and quantization(files.path):
            spread = device_map_of(devices)
        try:
            with refused_in_words(f"transformers cannot load {files.path}"), _without_adapter(files.path) as folder:
                config = self.config(files)
                model, loading = language_model_class(config).from_pretrained(
                    folder,
                    dtype="auto" if dtype == "as_saved" else dtype,
                    use_safetensors=True,
                    trust_remote_code=self.trust_remote_code,
                    local_files_only=True,
                    output_loading_info=True,
                    device_map=spread,
                    **loading_by_name(folder, files.taken_files),
                    **({"config": for_gradients(config, files.path)} if quantization(files.path) else {}),
                    **(gguf_loading(files.gguf_file) if files.gguf_file else {}),
                    **without_unsound_generation(folder),
                )
        except CheckpointError:
            # Of these, transformers names settings of its own.
            refuse_other_shapes(files.taken_files, self.skeleton(files).state_dict(), files.path)
            raise
        refuse_unmatched(loading["missing_keys"], loading["unexpected_keys"], model.state_dict(), files.path)
        return with_gradients(model if spread else model.to(devices.first)).eval()

    def load_tokenizer(self, files: CheckpointFiles) -> "PreTrainedTokenizerBase":
        """Return the checkpoint's tokenizer.

        Raises:
            CheckpointError: transformers cannot load it, reads it otherwise than its library, or it is beyond the limits.
        """
        return load_tokenizer(files, self.limits, trust_remote_code=self.trust_remote_code)

    def skeleton(self, files: CheckpointFiles, dtype: str = "as_saved", track: Track = "weights") -> "PreTrainedModel":
        """Return the model without memory for its weights (meta device): its layers and their shapes.

        Raises:
            CheckpointError: transformers does not know it as a causal language model, or an adapter does not fit its base.
        """
        import torch

        _require(track, files)
        base = files.base
        refuse_unsupported_quantization(base.path)
        with refused_in_words(f"{base.path} is not a causal language model that transformers knows"):
            config = self.config(files)
            refuse_other_task(config, base.path)
            config.dtype = (config.dtype or saved_type(base.taken_files)) if dtype == "as_saved" else dtype
            with torch.device("meta"):
                model = language_model_class(config).from_config(config, trust_remote_code=self.trust_remote_code)
            if files.adapter:
                return adapted_skeleton(model, files.path, track)
        return model

    def small_copy(self, files: CheckpointFiles) -> SmallCopy | None:
        """Return a small model of the architecture of a checkpoint, without its adapter, or None if none is small enough."""
        return small_copy(self.config(files), trust_remote_code=self.trust_remote_code)

    def config(self, files: CheckpointFiles) -> "PreTrainedConfig":
        """Return the configuration of a whole model, or of an adapter's base model.

        Raises:
            CheckpointError: transformers cannot read it, or it is beyond the limits.
        """
        from transformers import AutoConfig

        base = files.base
        with refused_in_words(f"transformers cannot read the configuration of {base.path}"):
            if not base.gguf_file:
                refuse_large([base.path / CONFIG], self.limits)
                refuse_many_layers(base.path / CONFIG, self.limits)
            return AutoConfig.from_pretrained(
                base.path,
                local_files_only=True,
                trust_remote_code=self.trust_remote_code,
                **named_file(base.gguf_file),
            )


def _require(track: Track, files: CheckpointFiles) -> None:
    """Refuse a checkpoint that does not have what is tracked."""
    if track == "weights":
        return
    if files.adapter is None:
        raise CheckpointError(
            f'`recipe.track = "adapter"` is for LoRA adapters, but {files.path} is a whole model; set it to "weights", or '
            "leave the checkpoint out of `active.checkpoints`"
        )
    files.adapter.require_matrices()


@contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """Yield a model's folder; one that holds an adapter too, which transformers would load with it, as links to the rest."""
    if not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    with scratch_folder() as links:
        for file in folder.iterdir():
            if file.name not in {ADAPTER_CONFIG, ADAPTER_WEIGHTS}:
                (links / file.name).symlink_to(file.resolve())
        yield links


def _base_name(folder: Path, taken: Set[str]) -> str:
    """Return the partition of a base model: `base-` and its folder's name, or that of its repository in the hub's cache."""
    snapshot = folder.parent.name == "snapshots"
    name = folder.parent.parent.name.rpartition("--")[2] if snapshot else folder.name
    name = partition_name(name, NAME_PUNCTUATION)
    name = name if name.startswith("base") else f"base-{name}"
    if name not in taken:
        return name
    return f"{name}-{blake2b(str(folder).encode(), digest_size=4).hexdigest()}"
