"""Second moments of Adam, from the state of the optimiser that a trainer saved beside a checkpoint's weights.

`optimizer.pt` is what transformers' Trainer writes, and `torch.save(optimizer.state_dict())`. A state names no parameters,
only their numbers: which is which follows from the names in its groups, where torch was given some, or from the order in
which the Trainer hands a model's parameters over; every size has to fit, or the state is refused.
"""

import math
import pickle
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorif_assets.errors import CheckpointError
from lorif_assets.lake.file_samples import sample_of
from lorif_assets.models.files.weight_names import unwrapped

if TYPE_CHECKING:
    import torch
    from torch import nn

OPTIMIZER_FILE = "optimizer.pt"
_SHARDED: Mapping[str, str] = {
    "global_step*": "DeepSpeed's shards",
    "optimizer_[0-9]*": "FSDP's shards",
    "optimizer.bin": "FSDP's state, by other names",
    "__*_0.distcp": "a distributed checkpoint",
    "rng_state_0.pth": "a run on several devices, which saved no whole state",
}
_OTHER_STATES: Mapping[str, str] = {
    "exp_avg_sq_row": "Adafactor's, which keeps sums of rows and columns in place of second moments",
    "state2": "an 8-bit optimiser's, whose second moments are quantised",
    "momentum_buffer": "Muon's, or SGD's with momentum, which have no second moments",
    "square_avg": "RMSprop's",
    "sum": "Adagrad's",
}
# What the Trainer leaves without weight decay, besides the parameters of `nn.LayerNorm`.
_UNDECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.|_)norm(?:\.|$)")


def optimizer_file(folder: Path) -> Path:
    """Return the file of the optimiser's state in a checkpoint's folder.

    Raises:
        CheckpointError: there is none; the message names what lies there in its place.
    """
    file = folder / OPTIMIZER_FILE
    if not file.is_file():
        found = [f"{path.name} ({what})" for pattern, what in _SHARDED.items() for path in file.parent.glob(pattern)]
        beside = f"; found {found[0]}, which is not read" if found else ""
        raise CheckpointError(
            f"there is no {file}{beside}. The Trainer writes it unless `save_only_model` is set; gather a sharded state into "
            'it, or take another `recipe.curvature`, "ekfac" say'
        )
    return file


def optimizer_version(folder: Path) -> str | None:
    """Return a hash of the optimiser's state in a checkpoint's folder, the same for a copy of it; None where there is none.

    The file is an archive with the checksum of each tensor in its directory, so that no tensor is read.
    """
    file = folder / OPTIMIZER_FILE
    try:
        state = file.stat()
        return _content(file, (state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    except OSError:
        return None


@lru_cache(maxsize=1_024)
def _content(file: Path, state: tuple[int, int, int]) -> str:
    size, *_ = state
    found: list[object] = [size, sample_of(file)]
    try:
        with zipfile.ZipFile(file) as archive:
            found += [(record.filename, record.file_size, record.CRC) for record in archive.infolist()]
    except (zipfile.BadZipFile, ValueError):
        # A state in torch's older format, or a damaged one: its size and samples tell it.
        pass
    return blake2b(repr(found).encode(), digest_size=16).hexdigest()


def root_second_moments(folder: Path, model: "nn.Module", names: Collection[str]) -> "dict[str, torch.Tensor]":
    """Return sqrt(v) + eps of parameters by name, FP32 on the CPU: what Adam divides their steps by.

    v is corrected for its start at zero, as Adam does it.

    Args:
        folder: of the checkpoint.
        model: loaded from it.
        names: of the parameters, as `model.named_parameters` has them.

    Raises:
        CheckpointError: there is no whole state of an Adam there, or it does not fit the model.
    """
    file = optimizer_file(folder)
    groups, states = _read(file)
    numbers = _numbers(file, groups, states, model)
    found = {}
    for name in names:
        if name not in numbers:
            raise CheckpointError(
                f"{file} has no state of {name!r}: its weight shares another's, or was not trained. Leave the layer out by "
                '`recipe.exclude_layers`, or take another `recipe.curvature`, "ekfac" say'
            )
        group, number = numbers[name]
        found[name] = _root(file, name, states.get(number, {}), group)
    return found


def _read(file: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[int, Mapping[str, Any]]]:
    """Return the groups and the states by parameter number; no code of the file's is run."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        groups, states = state["param_groups"], state["state"]
        return [dict(group) for group in groups], {int(number): dict(of_one) for number, of_one in states.items()}
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} is no optimiser's state that can be read without running code of its own, with `state` and "
            f"`param_groups`: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


def _numbers(
    file: Path,
    groups: Sequence[Mapping[str, Any]],
    states: Mapping[int, Mapping[str, Any]],
    model: "nn.Module",
) -> dict[str, tuple[Mapping[str, Any], int]]:
    """Return each parameter's group and number, by name."""
    fitting, parameters = [], dict(model.named_parameters())
    for names in _orders(groups, model):
        pairs = [
            (name, (group, int(number)))
            for group, of_group in zip(groups, names, strict=True)
            for name, number in zip(of_group, group["params"], strict=True)
        ]
        if all(_fits(states.get(number, {}), parameters[name]) for name, (_, number) in pairs):
            fitting.append(dict(pairs))
    if any(_by_name(other) != _by_name(fitting[0]) for other in fitting[1:]):
        raise CheckpointError(
            f"{file} fits the model in several orders of its parameters, so it does not tell which state is whose; save it "
            'by an optimiser that was given `named_parameters()`, or take another `recipe.curvature`, "ekfac" say'
        )
    if not fitting:
        sizes = ", ".join(str(len(group["params"])) for group in groups)
        raise CheckpointError(
            f"{file} does not fit the model: it has groups of {sizes} parameters, and the model has {len(parameters)} in all, "
            "of other sizes in the order of transformers' Trainer or of `model.parameters()`. Is it the state of an adapter, "
            'or of another model? Take another `recipe.curvature`, "ekfac" say'
        )
    return fitting[0]


def _by_name(numbers: Mapping[str, tuple[Mapping[str, Any], int]]) -> dict[str, int]:
    return {name: number for name, (_, number) in numbers.items()}


def _orders(groups: Sequence[Mapping[str, Any]], model: "nn.Module") -> Iterator[Sequence[Sequence[str]]]:
    """Yield the names of each group's parameters in every order that trainers use, and whose numbers fit."""
    counts, parameters = [len(group["params"]) for group in groups], dict(model.named_parameters())
    if all("param_names" in group for group in groups):
        named = [unwrapped(group["param_names"]) for group in groups]
        if [len(names) for names in named] == counts and all(name in parameters for names in named for name in names):
            yield named
        return
    decayed = [name for name in parameters if not _is_undecayed(name, model)]
    matrices = [name for name, parameter in parameters.items() if parameter.ndim > 1]
    for first in (list(parameters), decayed, matrices):
        chosen = set(first)
        split = [first, [name for name in parameters if name not in chosen]]
        found = split[:1] if len(groups) == 1 and not split[1] else split
        if [len(names) for names in found] == counts:
            yield found


def _is_undecayed(name: str, model: "nn.Module") -> bool:
    from torch import nn

    owner = model.get_submodule(name.rpartition(".")[0])
    return isinstance(owner, nn.LayerNorm) or _UNDECAYED.search(name.lower()) is not None


def _fits(state: Mapping[str, Any], parameter: "nn.Parameter") -> bool:
    moments = state.get("exp_avg_sq", state.get("momentum_buffer"))
    return moments is None or moments.shape == parameter.shape


def _root(file: Path, name: str, state: Mapping[str, Any], group: Mapping[str, Any]) -> "torch.Tensor":
    if "exp_avg_sq" not in state:
        other = next((words for key, words in _OTHER_STATES.items() if key in state), "no Adam's")
        raise CheckpointError(
            f"{file}: the state of {name!r} is {other}. The curvature \"adam\" needs Adam's or AdamW's; for a model that was "
            'trained otherwise take `recipe.curvature = "ekfac"`, which needs no state'
        )
    beta, steps = float(group["betas"][1]), float(state["step"])
    if not (0 <= beta < 1 and steps >= 1 and math.isfinite(steps)):
        raise CheckpointError(
            f"{file}: the state of {name!r} is of {steps:g} steps with a beta of {beta:g}, which no Adam has"
        )
    moments = state["exp_avg_sq"].float()
    if not bool(moments.isfinite().all()) or bool((moments < 0).any()):
        raise CheckpointError(f"{file}: second moments of {name!r} are negative or not finite; is the file damaged?")
    return (moments / (1 - beta**steps)).sqrt() + float(group["eps"])
