"""The files of a PEFT adapter: what is refused before anything is loaded, and where the base model lies."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorif_assets.config.hub_names import is_plain_name
from lorif_assets.config.secrets import masked_address
from lorif_assets.errors import CheckpointError, HubError
from lorif_assets.hub.names import is_hub_name
from lorif_assets.models.files.checkpoint_folders import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    model_weights,
    pickled_weights,
)
from lorif_assets.models.files.gguf import gguf_files
from lorif_assets.models.files.hub import described_model
from lorif_assets.models.files.same_files import same_files

# These change what the layers read, or choose between adapters token by token: no weights are equal to them.
_NOT_MERGED = frozenset(
    {
        "ADAPTION_PROMPT",
        "CARTRIDGE",
        "CPT",
        "LILY",
        "MULTITASK_PROMPT_TUNING",
        "POLY",
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "P_TUNING",
        "SHADOW",
        "XLORA",
    }
)
# With these fields, LoRA depends on the input in the same way, or changes what layers there are.
_NOT_MERGED_FIELDS = ("alora_invocation_tokens", "arrow_config", "layer_replication")
# With these starting values, the base's weights were changed before training, in a way that loading does not repeat.
_CHANGED_BASES = ("corda", "lora_ga", "pissa_niter_")
_TASKS = ("CAUSAL_LM", None)


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter's folder. `base_model` is the base that the settings name; without it, the adapter's own entry counts."""

    path: Path
    base_model: str | None = None

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return self.path / ADAPTER_WEIGHTS

    @property
    def files(self) -> list[Path]:
        """Configuration and weights."""
        return [self.path / ADAPTER_CONFIG, self.weights]

    @property
    def config(self) -> dict[str, Any]:
        """What the adapter's configuration says.

        Raises:
            CheckpointError: it is no JSON object.
        """
        file = self.path / ADAPTER_CONFIG
        try:
            config = json.loads(file.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{file} cannot be read: the copy is damaged, or still being written") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{file} is no adapter's configuration; found {type(config).__name__} in it")
        return config

    def check(self) -> None:
        """Refuse an adapter that is incomplete, unsafe to load, or whose effect no weights have.

        Raises:
            CheckpointError: it is one of these.
        """
        config = self.config
        kind = str(config.get("peft_type") or "").upper()
        if not kind:
            raise CheckpointError(
                f"{self.path / ADAPTER_CONFIG} says no `peft_type`: the adapter is not PEFT's. Merge it into its base model by "
                "the library that made it (MLX's by `mlx_lm.fuse`), and set `checkpoints.path` to the whole model"
            )
        if not (self.path / ADAPTER_WEIGHTS).is_file():
            pickled = pickled_weights(self.path)
            raise CheckpointError(
                f"{self.path} has no {ADAPTER_WEIGHTS}"
                + (
                    f", only {pickled[0]}, which is a pickle and could run code when loaded; load the adapter where you "
                    "trust it and save it again with `save_pretrained`"
                    if pickled
                    else ": the copy is incomplete, or still being written"
                )
            )
        odd = [field for field in _NOT_MERGED_FIELDS if config.get(field)]
        if kind in _NOT_MERGED or odd:
            raise CheckpointError(
                f"{self.path} is an adapter of the kind {kind}{f' with `{odd[0]}`' if odd else ''}, which cannot be merged "
                "into the base model's weights: attributed are adapters that change weights alone, such as LoRA, DoRA or "
                "IA3"
            )
        start = config.get("init_lora_weights")
        if isinstance(start, str) and start.startswith(_CHANGED_BASES):
            raise CheckpointError(
                f"{self.path} is a LoRA with `init_lora_weights = {start!r}`, which was trained beside a changed base model "
                "that cannot be made again from the adapter: save it as a plain LoRA, by `save_pretrained` with "
                "`path_initial_model_for_weight_conversion`"
            )
        if (task := config.get("task_type")) not in _TASKS:
            raise CheckpointError(
                f"{self.path} is an adapter for the task {task}: attributed are causal language models (CAUSAL_LM)"
            )

    def require_matrices(self) -> None:
        """Refuse an adapter that has no matrices A and B to track, or some that nothing multiplies token by token.

        Raises:
            CheckpointError: it is no LoRA, or one on parameters.
        """
        config = self.config
        kind = str(config.get("peft_type", "")).upper()
        if parameters := config.get("target_parameters"):
            raise matrices_on_parameters(self.path, parameters)
        if kind != "LORA":
            raise CheckpointError(
                f'{self.path} is an adapter of the kind {kind}, and `recipe.track = "adapter"` is for the matrices A and B '
                'of LoRA; set it to "weights", which merges the adapter'
            )

    def base(self) -> Path:
        """Return the base model's folder: that of the settings; the adapter's own where it holds one; or the one it names.

        Raises:
            CheckpointError: there is no such folder, or the adapter holds another model than the base that it names.
        """
        if self.base_model is not None:
            return base_folder(self.base_model, self.path, None)
        if not self._holds_model:
            return self._named_base()
        try:
            named = self._named_base()
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.path} holds an adapter and a whole model, which may be the base model or, as torchtune writes it, have "
                "the adapter merged into it: set `checkpoints.base_model` to the model that the training began with, which is "
                f"this folder only where the whole model was not merged; {error}"
            ) from error
        if not same_files(model_weights(self.path), model_weights(named)):
            raise CheckpointError(
                f"{self.path} holds an adapter and a whole model, whose weights are not those of the adapter's base model "
                f"{named}: if they are the merged ones, keep either in a folder of its own; if they are the base's, set "
                "`checkpoints.base_model` to the folder"
            )
        return self.path

    @property
    def _holds_model(self) -> bool:
        return (self.path / CONFIG).is_file() and bool(model_weights(self.path))

    def _named_base(self) -> Path:
        config = self.config
        named = config.get("base_model_name_or_path")
        if not named:
            raise CheckpointError(
                f"the adapter {self.path} does not say what its base model is; set `checkpoints.base_model` to its folder"
            )
        return base_folder(str(named), self.path, config.get("revision"))


def matrices_on_parameters(adapter: Path, parameters: Sequence[str]) -> CheckpointError:
    """Return why the matrices of a LoRA on parameters are not tracked."""
    return CheckpointError(
        f"{adapter} is a LoRA on parameters ({', '.join(parameters)}), whose matrices are added to the weights before these "
        'are multiplied, so that `recipe.track = "adapter"` cannot follow them; set it to "weights", which merges the adapter'
    )


def base_folder(name: str, adapter: Path | None, revision: str | None) -> Path:
    """Return the folder of a base model, as an adapter or the settings name it.

    A relative path starts at the adapter's folder or at one above it, which the training was probably started in. Other
    names are a hub's: configuration and tokenizer are downloaded where they are not in the cache, weights when needed.

    Raises:
        CheckpointError: there is no such folder.
    """
    path = Path(name).expanduser()
    starts = [adapter.absolute(), *adapter.absolute().parents] if adapter else [Path.cwd()]
    # Joined with an absolute path, a start is gone.
    candidates = [start / path for start in starts]
    found = next((folder for folder in candidates if (folder / CONFIG).is_file() or gguf_files(folder)), None)
    obstacle = ""
    if found is None:
        found = next((folder for folder in candidates if (folder / ADAPTER_CONFIG).is_file()), None)
    if found is None and (is_hub_name(name) or is_plain_name(name)):
        try:
            found = described_model(name, revision)
        except HubError as error:
            obstacle = f"; on the hub: {error}"
    if found is None:
        raise CheckpointError(
            f"the base model {masked_address(name)!r}"
            + (f" of the adapter {adapter}" if adapter else " of `checkpoints.base_model`")
            + " was not found: "
            + ("no such folder has a config.json or a GGUF file" if path.is_absolute() else _looked_for(adapter))
            + obstacle
            + ". Set `checkpoints.base_model` to the folder of the model that the adapter was trained on"
        )
    if (found / ADAPTER_CONFIG).is_file() and not model_weights(found):
        raise CheckpointError(
            f"the base model {name!r} is an adapter itself ({found}); merge it into its own base first, save that with "
            "`save_pretrained`, and set `checkpoints.base_model` to it"
        )
    return found.resolve()


def _looked_for(adapter: Path | None) -> str:
    start = f"{adapter} and the folders above it" if adapter else "the working directory"
    return f"there is no such folder below {start}"
